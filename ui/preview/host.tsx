// Stands in for Airflow's UI: the globals, a router under a base path, the plugin's page and the tab of a DAG.
import * as React from "react";
import * as ReactJSXRuntime from "react/jsx-runtime";
import { createRoot } from "react-dom/client";
import * as ReactRouterDOM from "react-router-dom";

const { createBrowserRouter, RouterProvider, useParams, useLocation } = ReactRouterDOM;
const parameters = new URLSearchParams(location.search);
Object.assign(globalThis, { React, ReactJSXRuntime, ...(parameters.has("bare") ? {} : { ReactRouterDOM }) });
document.documentElement.classList.toggle("dark", parameters.has("dark"));
await import(/* @vite-ignore */ new URL("aixplain/static/aixplain.js", document.baseURI).href);
const Plugin = Reflect.get(globalThis, "aiXplain") as React.ComponentType<{ dagId?: string }>;

const Shown = () => <Plugin dagId={useParams().dagId} />;
const Elsewhere = () => <p>{useLocation().pathname}</p>;
const router = createBrowserRouter(
  [
    { path: "/plugin/aixplain", element: <Shown /> },
    { path: "/dags/:dagId/plugin/aixplain", element: <Shown /> },
    { path: "*", element: <Elsewhere /> },
  ],
  { basename: "/airflow" },
);
createRoot(document.querySelector("#root")!).render(<RouterProvider router={router} />);
