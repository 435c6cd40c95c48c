// Elements, made of nothing but text: no markup that comes from the document is ever parsed as HTML.

/** An element with attributes, listeners (`onclick`) and children. What is null or false is left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child);
  }
}

/** Put these in place of all that is in an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

let ids = 0;

/** An id that no other element of the page has. */
export const newId = (prefix) => `${prefix}-${++ids}`;

/** The little of Markdown that docstrings use: paragraphs, lists, blocks of code, `code` and **bold**. */
export function prose(text) {
  const blocks = [];
  const parts = (text ?? "").replaceAll("\r", "").split(/\n(?=```)|(?<=\n```)\n|\n\s*\n/);
  for (const part of parts) {
    const block = part.replace(/^\n+|\s+$/g, "");
    if (!block) continue;
    const lines = block.split("\n");
    if (/^```/.test(block)) {
      blocks.push(h("pre", { class: "code", tabindex: "0" }, block.replace(/^```\w*\n?|\n?```$/g, "")));
    } else if (lines.every((line) => /^ {4}|^\t/.test(line))) {
      blocks.push(h("pre", { class: "code", tabindex: "0" }, lines.map((line) => line.replace(/^ {4}|^\t/, "")).join("\n")));
    } else if (/^[-*] /.test(block)) {
      const items = block.split(/\n(?=[-*] )/);
      blocks.push(h("ul", {}, items.map((item) => h("li", {}, inline(item.slice(2))))));
    } else {
      blocks.push(h("p", {}, inline(block)));
    }
  }
  return blocks;
}

/** One run of text, with `code` and **bold** in it. */
export function inline(text) {
  return (text ?? "").split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (/^`[^`]+`$/.test(part)) return h("code", {}, part.slice(1, -1));
    if (/^\*\*[^*]+\*\*$/.test(part)) return h("strong", {}, part.slice(2, -2));
    return part;
  });
}

/** JSON, coloured by what its parts are. */
export function json(value) {
  const short = JSON.stringify(value) ?? "";
  const text = short.length <= 34 ? JSON.stringify(value, null, 1).replace(/\n\s*/g, " ") : JSON.stringify(value, null, 2);
  const token = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(token)) {
    parts.push(text.slice(end, match.index));
    const kind = match[2] ? "key" : match[1] ? "text" : "literal";
    parts.push(h("span", { class: `json-${kind}` }, match[1] ?? match[0]), match[2] ?? "");
    end = match.index + match[0].length;
  }
  parts.push(text.slice(end));
  return h("pre", { class: "code", tabindex: "0" }, parts);
}
