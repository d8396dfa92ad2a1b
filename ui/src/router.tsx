// The address and links: through Airflow's router, or without it, since Airflow 3.1.0 does not give it to plugins.
import { type AnchorHTMLAttributes, useMemo, useSyncExternalStore } from "react";
import type * as ReactRouterDOM from "react-router-dom";

const router = (globalThis as { ReactRouterDOM?: typeof ReactRouterDOM }).ReactRouterDOM;

type SetParams = (params: URLSearchParams, options?: { replace: boolean }) => void;

export const useSearchParams: () => [URLSearchParams, SetParams] = router?.useSearchParams ?? useAddress;
export const Link = router?.Link ?? PageLink;

function useAddress(): [URLSearchParams, SetParams] {
  const search = useSyncExternalStore(subscribe, () => location.search);
  return [useMemo(() => new URLSearchParams(search), [search]), setAddress];
}

const EVENTS = ["popstate", "aixplain-address"]; // the browser's, and that of setAddress

function subscribe(onChange: () => void): () => void {
  EVENTS.forEach((event) => addEventListener(event, onChange));
  return () => EVENTS.forEach((event) => removeEventListener(event, onChange));
}

function setAddress(params: URLSearchParams, options?: { replace: boolean }): void {
  const address = `${location.pathname}?${params}`;
  history[options?.replace ? "replaceState" : "pushState"](history.state, "", address);
  dispatchEvent(new Event("aixplain-address"));
}

function PageLink({ to, ...rest }: AnchorHTMLAttributes<HTMLAnchorElement> & { to: string }) {
  return <a href={new URL(to.slice(1), document.baseURI).href} {...rest} />;
}
