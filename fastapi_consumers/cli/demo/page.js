// A client in one file: it pairs nothing, since it needs no answers but errors, and recovers what it missed.
const name = (prompt("Your name?", `guest ${Math.floor(Math.random() * 900) + 100}`) || "guest").slice(0, 30);
const [log, people, state, text] = ["log", "people", "state", "text"].map((id) => document.getElementById(id));
const here = new Map();                                  // name -> set of refs
let socket, epoch, offset, delay = 500;

function show(line, kind = "") {
  const item = document.createElement("li");
  item.textContent = line;                               // never as HTML: others wrote it
  item.className = kind;
  log.append(item);
  item.scrollIntoView({ block: "nearest" });
}

function apply(joins, leaves) {
  for (const [who, { metas }] of Object.entries(leaves)) {
    for (const { ref } of metas) here.get(who)?.delete(ref);
    if (here.get(who)?.size === 0) here.delete(who);
  }
  for (const [who, { metas }] of Object.entries(joins)) {
    if (!here.has(who)) here.set(who, new Set());
    for (const { ref } of metas) here.get(who).add(ref);
  }
  people.textContent = [...here.keys()].join(", ");
}

const handlers = {
  joined(message) {
    if (message.recovered === false) show("Not all that was said meanwhile could be recovered.", "notice");
    ({ epoch, offset } = message);
    send("presence");
    if (message.recovered === undefined) send("history", { limit: 20 });
  },
  event(message) {
    offset = message.offset ?? offset;
    if (message.event === "said") show(`${message.data.by}: ${message.data.text}`);
  },
  presence(message) { apply(message.joins, message.leaves); },
  gap() { show("Something may have been missed.", "notice"); },
  error(message) { show(message.error.message, "notice"); },
  reply({ action, status, data, error }) {
    if (status === "error") show(error.message, "notice");
    else if (action === "presence") { here.clear(); apply(data.members, {}); }
    else if (action === "history") {
      for (const past of data.results.reverse()) show(`${past.data.by}: ${past.data.text}`);
    }
  },
};

function send(action, data) { socket.send(JSON.stringify({ action, request_id: action, data })); }

function connect() {
  const url = new URL("ws/lobby", location.href.replace(/^http/, "ws"));
  url.searchParams.set("name", name);
  if (epoch !== undefined) url.searchParams.set("recover", `${epoch}:${offset}`);
  socket = new WebSocket(url, ["fc.v1.json"]);
  socket.onopen = () => { delay = 500; state.textContent = `as ${name}`; };
  socket.onmessage = ({ data }) => { const message = JSON.parse(data); handlers[message.type]?.(message); };
  socket.onclose = () => {
    state.textContent = "not connected";
    setTimeout(connect, delay * (0.5 + Math.random()));
    delay = Math.min(delay * 2, 30000);
  };
}

document.getElementById("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN) return;
  send("say", { text: text.value });
  text.value = "";
});
connect();
