// Copies what the console's pages load from npm's packages, with licences and hashes: make vendor.
import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";

const FILES = {
  "htmx.org": ["dist/htmx.min.js"],
  uplot: ["dist/uPlot.iife.min.js", "dist/uPlot.min.css"],
};
const here = new URL(".", import.meta.url);
const target = new URL("../../service/console/static/vendor/", here);

await mkdir(target, { recursive: true });
const found = [];
for (const [name, paths] of Object.entries(FILES)) {
  const source = new URL(`node_modules/${name}/`, here);
  const { version, license } = JSON.parse(await readFile(new URL("package.json", source)));
  await copyFile(new URL("LICENSE", source), new URL(`${name}.LICENSE`, target));
  for (const path of paths) {
    const file = path.split("/").at(-1);
    const text = await readFile(new URL(path, source));
    await writeFile(new URL(file, target), text);
    found.push({ file, package: name, version, license, sha256: createHash("sha256").update(text).digest("hex") });
  }
}
await writeFile(new URL("vendored.json", target), `${JSON.stringify(found, null, 2)}\n`);
