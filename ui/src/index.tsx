// Airflow imports the bundle and renders the function that it finds under the plugin's name, or as AirflowPlugin.
import { Page } from "./page";

Object.assign(globalThis, { aiXplain: Page, AirflowPlugin: Page });
