// The official parser's findings about AsyncAPI documents.
// node parse.js BUNDLE FILE: the package's bundle for browsers, and a JSON file of name to document.
globalThis.self = globalThis; // the bundle looks for a browser's global object
const { readFileSync } = require("node:fs");
const Parser = require(process.argv[2]);

const severities = ["error", "warning", "information", "hint"];

async function main() {
  const documents = JSON.parse(readFileSync(process.argv[3], "utf8"));
  const parser = new Parser();
  const found = {};
  for (const [name, document] of Object.entries(documents)) {
    const { diagnostics } = await parser.parse(JSON.stringify(document));
    found[name] = diagnostics.map(
      ({ severity, code, message, path }) => `${severities[severity]} ${code}: ${message} (${path.join("/")})`,
    );
  }
  process.stdout.write(JSON.stringify(found));
}

main();
