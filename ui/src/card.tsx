// A part of the page with a heading, and controls beside it.
import type { ReactNode } from "react";

export function Card({ title, controls, children }: { title: string; controls?: ReactNode; children: ReactNode }) {
  return (
    <section className="aix-card">
      <header>
        <h2>{title}</h2>
        {controls}
      </header>
      {children}
    </section>
  );
}
