// Builds the page into the package: the bundle, which states the hash of its sources, and the licences of what is in it.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { build, transform } from "esbuild";

const STATIC = "../airflow_provider_aixplain/ui/static";
const GLOBALS = { react: "React", "react/jsx-runtime": "ReactJSXRuntime" };

// tests/unit/ui/test_bundle.py computes the same hash.
function hashSources() {
  const hash = createHash("sha256");
  const sources = readdirSync("src").map((name) => `src/${name}`);
  for (const path of [...sources, "build.mjs", "package-lock.json"].sort()) {
    hash.update(`${path}\0`).update(readFileSync(path)).update("\0");
  }
  return hash.digest("hex");
}

// Airflow provides React as a global: a second one would not share the contexts of the first.
const hostGlobals = {
  name: "host-globals",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^react(\/jsx-runtime)?$/ }, ({ path }) => ({ path, namespace: "host" }));
    onLoad({ filter: /.*/, namespace: "host" }, ({ path }) => ({ contents: `module.exports = globalThis.${GLOBALS[path]}` }));
  },
};

const styles = {
  name: "styles",
  setup({ onLoad }) {
    onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const { code } = await transform(readFileSync(path, "utf8"), { loader: "css", minify: true });
      return { contents: code, loader: "text" };
    });
  },
};

function licencesOf(inputs) {
  const packages = Object.keys(inputs).flatMap((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? []);
  return [...new Set(packages)].sort().map((name) => {
    const folder = `node_modules/${name}`;
    const { version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    if (!file) throw new Error(`${name} has no licence file: find its licence, and name it in build.mjs`);
    return `${name} ${version} (${license})\n\n${readFileSync(`${folder}/${file}`, "utf8").trim()}\n`;
  });
}

const { metafile } = await build({
  entryPoints: ["src/index.tsx"],
  outfile: `${STATIC}/aixplain.js`,
  bundle: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  minify: true,
  charset: "utf8",
  legalComments: "none", // LICENSES.txt has them in full
  banner: { js: `/* aiXplain page. Licences of its packages: LICENSES.txt. Sources: sha256 ${hashSources()} */` },
  plugins: [hostGlobals, styles],
  metafile: true,
});
const parts = ["aixplain.js contains these packages:\n", ...licencesOf(metafile.inputs)];
writeFileSync(`${STATIC}/LICENSES.txt`, parts.join(`\n${"-".repeat(80)}\n\n`));
for (const [name, { bytes }] of Object.entries(metafile.outputs)) console.log(`${name}: ${bytes} bytes`);
