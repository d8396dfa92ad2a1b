// Stacked bars per day, which the reader can turn into a table.
import { BarController, BarElement, CategoryScale, Chart, LinearScale, Tooltip } from "chart.js";
import { type ReactNode, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { Card } from "./card";
import { shorten } from "./format";
import type { Series } from "./series";

Chart.register(BarController, BarElement, CategoryScale, LinearScale, Tooltip);

interface Props {
  title: string;
  days: string[];
  series: Series[];
  nameOf: (key: string) => string;
  colorOf: (key: string, index: number) => string; // a CSS variable
  format: (value: string) => string;
  sum: (values: string[]) => string;
  isCount?: boolean; // whole numbers
  controls?: ReactNode;
}

export function StackedBars(props: Props) {
  const [isTable, setIsTable] = useState(false);
  const { title, series, nameOf, colorOf } = props;
  const controls = (
    <>
      {props.controls}
      <button type="button" className="aix-quiet" aria-pressed={isTable} onClick={() => setIsTable(!isTable)}>
        {isTable ? "Show as chart" : "Show as table"}
      </button>
    </>
  );
  return (
    <Card title={title} controls={controls}>
      <div className="aix-chart">{isTable ? <DaysTable {...props} /> : <Bars {...props} />}</div>
      <ul className="aix-legend" aria-label={`${title}: colours`} hidden={isTable}>
        {series.map(({ key }, index) => (
          <li key={key} title={nameOf(key)}>
            <span className="aix-swatch" style={{ background: `var(${colorOf(key, index)})` }} />
            {shorten(nameOf(key))}
          </li>
        ))}
      </ul>
    </Card>
  );
}

function Bars({ title, days, series, nameOf, colorOf, format, sum, isCount }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const chart = useRef<Chart<"bar", (number | null)[], string>>(undefined);
  const theme = useTheme();
  useEffect(() => {
    chart.current = new Chart(canvas.current!, { type: "bar", data: { labels: [], datasets: [] } });
    return () => chart.current?.destroy();
  }, []);
  useEffect(() => {
    const styles = getComputedStyle(canvas.current!);
    const color = (name: string) => styles.getPropertyValue(name).trim();
    const label = (day: string, year?: "numeric") =>
      new Date(day).toLocaleDateString("en", { day: "numeric", month: "short", year, timeZone: "UTC" });
    const font = { family: styles.fontFamily, size: 12 };
    chart.current!.data = {
      labels: days,
      datasets: series.map(({ key, values }, index) => ({
        label: shorten(nameOf(key)),
        data: values.map((value) => (value === undefined ? null : Number(value))),
        backgroundColor: color(colorOf(key, index)),
        maxBarThickness: 48,
        borderColor: color("--aix-panel"), // separates the parts of a bar, also for those who do not see the colours
        borderWidth: days.length > 100 ? 0 : { top: 1 },
        borderSkipped: false,
      })),
    };
    chart.current!.options = {
      animation: false,
      maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      scales: {
        x: {
          stacked: true,
          grid: { display: false },
          border: { color: color("--aix-border") },
          ticks: {
            color: color("--aix-muted"),
            font,
            maxRotation: 0,
            autoSkipPadding: 16,
            callback: (_, index) => label(days[index]!, days.length > 180 ? "numeric" : undefined),
          },
        },
        y: {
          stacked: true,
          border: { display: false },
          grid: { color: color("--aix-border") },
          ticks: { color: color("--aix-muted"), font, maxTicksLimit: 6, precision: isCount ? 0 : undefined },
        },
      },
      plugins: {
        tooltip: {
          backgroundColor: color("--aix-fg"),
          titleColor: color("--aix-panel"),
          bodyColor: color("--aix-panel"),
          footerColor: color("--aix-panel"),
          titleFont: font,
          bodyFont: font,
          footerFont: font,
          boxPadding: 4,
          padding: 10,
          filter: ({ raw }) => Boolean(raw),
          itemSort: (one, two) => two.datasetIndex - one.datasetIndex, // as the bars are stacked
          callbacks: {
            title: ([item]) => (item ? label(days[item.dataIndex]!, "numeric") : ""),
            label: ({ datasetIndex, dataIndex, dataset }) =>
              `${dataset.label}: ${format(series[datasetIndex]!.values[dataIndex]!)}`,
            footer: (items) => (items.length > 1 ? `Total: ${format(sumOf(series, items[0]!.dataIndex, sum))}` : ""),
          },
        },
      },
    };
    chart.current!.update();
  }, [days, series, theme]);
  return <canvas ref={canvas} role="img" aria-label={`${title}: bar chart. The button before it shows it as a table.`} />;
}

function sumOf(series: Series[], index: number, sum: Props["sum"]): string {
  return sum(series.flatMap(({ values }) => values[index] ?? []));
}

function DaysTable({ title, days, series, nameOf, format, sum }: Props) {
  return (
    <div className="aix-scroll" tabIndex={0} role="region" aria-label={title}>
      <table>
        <thead>
          <tr>
            <th scope="col">Day (UTC)</th>
            {series.map(({ key }) => (
              <th scope="col" key={key} className="aix-number" title={nameOf(key)}>
                {shorten(nameOf(key), 24)}
              </th>
            ))}
            <th scope="col" className="aix-number">
              Total
            </th>
          </tr>
        </thead>
        <tbody>
          {days.map((day, index) => (
            <tr key={day}>
              <th scope="row">{day}</th>
              {series.map(({ key, values }) => (
                <td key={key} className="aix-number" title={values[index]}>
                  {values[index] === undefined ? "" : format(values[index]!)}
                </td>
              ))}
              <td className="aix-number">{format(sumOf(series, index, sum))}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Changes whenever the page's colours may have: Airflow sets a class on the root element. */
function useTheme(): string {
  return useSyncExternalStore(subscribeToTheme, () => `${document.documentElement.className} ${document.documentElement.dataset.theme}`);
}

function subscribeToTheme(onChange: () => void): () => void {
  const observer = new MutationObserver(onChange);
  observer.observe(document.documentElement, { attributeFilter: ["class", "data-theme"] });
  return () => observer.disconnect();
}
