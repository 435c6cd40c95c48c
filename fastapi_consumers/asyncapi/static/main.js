// The page: fetches the document, and shows one channel at a time, beside a console for it.

import { Console } from "./console.js";
import { Api } from "./document.js";
import { fill, h } from "./dom.js";
import { reference } from "./reference.js";

const main = document.getElementById("main");
const side = document.getElementById("console");
const skip = document.querySelector(".skip");
const nav = document.getElementById("nav");
const tabs = ["reference", "console"].map((name) => document.getElementById(`tab-${name}`));
const folder = new URL(document.body.dataset.document, location.href);

let api = null;
let shown = null;
let client = null;

// -- the theme: that of the system, until somebody chooses ----------------------------------------------------------------

const themes = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
const themeButton = document.getElementById("theme");

function setTheme(theme) {
  const known = theme in themes ? theme : "auto";
  document.documentElement.dataset.theme = known;
  themeButton.textContent = themes[known];
}

const stored = (change) => {
  try {
    return change(localStorage);
  } catch {
    return null; // A browser may keep nothing.
  }
};

setTheme(stored((storage) => storage.getItem("asyncapi-theme")) ?? "auto");
themeButton.addEventListener("click", () => {
  const names = Object.keys(themes);
  const next = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
  setTheme(next);
  stored((storage) => storage.setItem("asyncapi-theme", next));
});

// -- reference or console, where there is no room for both ----------------------------------------------------------------

function showTab(name, { focus = false } = {}) {
  document.body.dataset.view = name;
  skip.hash = name === "console" ? "#console" : "#main";
  for (const tab of tabs) {
    const isChosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
    if (isChosen && focus) tab.focus();
  }
}

tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => showTab(tab.id.slice(4)));
  tab.addEventListener("keydown", ({ key }) => {
    if (key === "ArrowLeft" || key === "ArrowRight") showTab(tabs[1 - index].id.slice(4), { focus: true });
  });
});
showTab("reference");

// -- channels -------------------------------------------------------------------------------------------------------------

/** The server to try things with. The one that the page came from is what the browser says it is, whatever proxies did. */
function serverUrl() {
  const servers = Object.values(api.document.servers ?? {}).map((server) => api.resolve(server));
  const server = servers.find((entry) => ["ws", "wss"].includes(entry.protocol));
  if (server && !server["x-this"]) return `${server.protocol}://${server.host}${server.pathname ?? ""}`;
  const prefix = folder.pathname.endsWith(document.body.dataset.path) ? folder.pathname.slice(0, -document.body.dataset.path.length) : "";
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${prefix}`;
}

function showNav() {
  const items = api.channels.map((channel) => {
    const item = h("a", { href: hashOf(channel) },
      h("span", { class: "nav-title" }, channel.title), h("span", { class: "nav-address" }, channel.address));
    return h("li", { "data-words": words(channel) }, item);
  });
  const list = h("ul", {}, items);
  const filter = h("input", { type: "search", placeholder: "Find channels, actions, events", "aria-label": "Find channels, actions, events",
    oninput: () => {
      const wanted = filter.value.trim().toLowerCase();
      for (const item of items) item.hidden = !item.dataset.words.includes(wanted);
    } });
  fill(nav, api.channels.length > 4 && filter, list);
}

const hashOf = (channel) => `#${encodeURIComponent(channel.key)}`;

function words(channel) {
  const names = [...channel.actions.map(({ name }) => name), ...channel.events.map(({ title }) => title)];
  return [channel.key, channel.title, channel.address, ...channel.tags, ...names].join(" ").toLowerCase();
}

function showChannel({ focus = true } = {}) {
  // Compared as it stands in the links: what a hash holds need not be decodable.
  const channel = api.channels.find((each) => location.hash === hashOf(each)) ?? api.channels[0];
  if (!channel) {
    fill(main, h("h1", {}, "No channels"), h("p", { class: "lead" }, "The application routes no consumers."));
    return;
  }
  if (channel === shown) return;
  shown = channel;
  client?.close();
  client = new Console(api, channel, serverUrl());
  // Where there is no room for both, the reference and its title are hidden.
  fill(side, h("h1", { class: "console-title" }, channel.title), client.element);
  fill(main, intro(), reference(api, channel, (action) => {
    showTab("console");
    client.choose(action);
  }));
  for (const link of nav.querySelectorAll("a")) {
    const isCurrent = link.getAttribute("href") === hashOf(channel);
    if (isCurrent) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else link.removeAttribute("aria-current");
  }
  document.title = `${channel.title} · ${api.document.info.title}`;
  if (focus) {
    showTab("reference");
    document.getElementById("channel-title").focus({ preventScroll: true });
    main.scrollTop = 0;
    scrollTo(0, 0);
  }
}

/** What the document says of the application, on the first channel only. */
function intro() {
  const { description } = api.document.info;
  return description && shown === api.channels[0] ? h("p", { class: "intro" }, description) : null;
}

async function start() {
  try {
    const response = await fetch(folder);
    if (!response.ok) throw new Error(`The server answered ${response.status}.`);
    api = new Api(await response.json());
  } catch (error) {
    fill(main, h("h1", {}, "The document could not be loaded"), h("p", { class: "lead" }, error.message));
    return;
  }
  document.getElementById("title").textContent = api.document.info.title;
  document.getElementById("version").textContent = api.document.info.version;
  showNav();
  showChannel({ focus: false });
  addEventListener("hashchange", () => showChannel());
}

start();
