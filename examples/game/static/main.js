// The page: what the server says of the table is shown, what is clicked is asked of it. No rule is known here.

import { Client } from "/static/client.js";

const $ = (id) => document.getElementById(id);

const STATES = { connecting: "Connecting…", open: "Connected", waiting: "Reconnecting…", closed: "Not connected" };
const SHAPES = { X: "M5 5 L19 19 M19 5 L5 19", O: "M12 4 a8 8 0 1 1 0 16 a8 8 0 1 1 0 -16" };
const SVG = "http://www.w3.org/2000/svg";
const TAKEN = ["group_full", "table_taken"];
const GONE = ["invalid_token", "seat_lost"];

let room = "";
let client = null;
let me = null; // {mark, grace}
let table = null;
let refusal = ""; // why the last attempt to come in failed

// -- what is kept: the name for next time, the seat for this tab -------------------------------------------------------

const seatKey = () => `seat.${room}`;
const token = () => sessionStorage.getItem(seatKey());

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function drawn(mark) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", mark);
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", SHAPES[mark]);
  svg.append(shape);
  return svg;
}

// -- the three places to be ---------------------------------------------------------------------------------------------

function show(place) {
  for (const each of ["door", "outside", "table"]) $(each).hidden = each !== place;
}

function goOutside(title, text, again) {
  $("outside-title").textContent = title;
  $("outside-text").textContent = text;
  $("again").textContent = again ?? "";
  $("again").hidden = again === undefined;
  const isNew = $("outside").hidden;
  show("outside");
  if (isNew) $("outside-title").focus();
}

function goToDoor() {
  client = null;
  $("state").hidden = true;
  $("door-room").textContent = room;
  $("name").value = localStorage.getItem("name") ?? "";
  show("door");
}

function sitDown() {
  const name = encodeURIComponent(localStorage.getItem("name"));
  client = new Client(`/ws/${room}?name=${name}`, {
    greeting: "welcome",
    offer: () => (token() === null ? [] : [`bearer.${token()}`]),
  });
  client.addEventListener("state", ({ detail }) => changed(detail));
  client.addEventListener("event", ({ detail }) => heard(detail));
  client.open();
}

function changed({ state, reason, error }) {
  $("state").hidden = false;
  $("state").dataset.state = state;
  // Who waits for a seat need not see each attempt.
  const isQueueing = !$("outside").hidden && TAKEN.includes(refusal) && state !== "open";
  $("state").textContent = isQueueing || TAKEN.includes(reason) ? "Waiting for a seat" : STATES[state];
  if (state !== "connecting") refusal = reason;
  if (state === "open") {
    const isNew = $("table").hidden;
    say("");
    show("table");
    if (isNew) $("turn").focus();
  } else if (state === "waiting" && TAKEN.includes(reason)) {
    goOutside(
      "Two are playing here already",
      "You can wait: as soon as somebody gives up a seat you have it. Or play in a room of your own.",
    );
  } else if (GONE.includes(error?.code)) {
    // Too long away. Perhaps there is a seat all the same.
    sessionStorage.removeItem(seatKey());
    client.open();
  } else if (state === "closed" && reason === "replaced") {
    goOutside("You play in another window", "Your seat went with you. It can come back here.", "Play here");
  } else if (state === "closed" && reason === "left") {
    sessionStorage.removeItem(seatKey());
    goOutside("You have left", "Your seat is free for somebody else.", "Play again");
  } else if (state === "closed") {
    goOutside("That did not work", error?.message ?? "The server ended the connection.", "Try again");
  }
  if (table !== null) render();
}

function heard({ event, data }) {
  if (event === "welcome") {
    me = data;
    sessionStorage.setItem(seatKey(), data.token);
  } else if (event === "table") {
    table = data;
    say("");
    render();
  }
}

// -- the table ------------------------------------------------------------------------------------------------------------

function say(text) {
  $("notice").textContent = text;
}

function turnText() {
  const other = table.seats.find(({ mark }) => mark !== me.mark);
  if (other === undefined) return "Waiting for somebody to play with";
  if (table.winner === me.mark) return "You have won";
  if (table.winner !== null) return `${other.name} has won`;
  if (table.turn === null) return "A draw";
  if (!other.is_here) return `${other.name} was lost, and has ${me.grace} seconds to come back`;
  return table.turn === me.mark ? "Your turn" : `${other.name} is thinking`;
}

function seat(mark) {
  const { name, is_here, wins, wants_rematch } = table.seats.find((each) => each.mark === mark) ?? {};
  if (name === undefined) {
    return make("li", { className: "empty" }, drawn(mark), make("span", { className: "name" }, "Free seat"));
  }
  const who = mark === me.mark ? "You" : is_here ? "Opponent" : "Away";
  const line = make(
    "li",
    { className: [is_here ? "" : "away", table.turn === mark ? "turn" : ""].join(" ") },
    drawn(mark),
    make("bdi", { className: "name", title: name }, name),
    make("span", { className: "wins", title: "Games won" }, String(wins)),
    make("span", { className: "who" }, wants_rematch ? `${who}, wants another game` : who),
  );
  line.querySelector(".wins").setAttribute("aria-label", `${wins} won`);
  return line;
}

function render() {
  const isOpen = client?.state === "open";
  const isMine = isOpen && table.turn === me.mark && table.seats.length === 2;
  $("turn-text").textContent = turnText();
  $("seats").replaceChildren(seat("X"), seat("O"));
  table.board.forEach((mark, square) => {
    const button = $("board").children[square];
    const where = `Row ${Math.floor(square / 3) + 1}, column ${(square % 3) + 1}`;
    button.setAttribute("aria-label", `${where}: ${mark ?? "free"}`);
    button.setAttribute("aria-disabled", String(!isMine || mark !== null));
    button.classList.toggle("won", table.line.includes(square));
    if (button.dataset.mark !== (mark ?? "")) {
      button.dataset.mark = mark ?? "";
      button.replaceChildren(...(mark === null ? [] : [drawn(mark)]));
    }
  });
  const mine = table.seats.find(({ mark }) => mark === me.mark);
  $("rematch").hidden = table.turn !== null || table.seats.length < 2 || mine?.wants_rematch === true;
  $("invite").hidden = table.seats.length === 2;
}

function ask(action, data) {
  client.call(action, data).then(
    () => say(""),
    ({ code, message, retryAfter }) => {
      if (code === "connection_lost") return;
      say(code === "throttled" ? `Slowly: try again in ${Math.ceil(retryAfter)} s.` : message);
    },
  );
}

for (let square = 0; square < 9; square++) {
  const button = make("button", { type: "button" });
  // The server decides. A square that looks taken may be clicked: then one hears why not.
  button.addEventListener("click", () => ask("play", { square }));
  $("board").append(button);
}

$("rematch").addEventListener("click", () => {
  ask("rematch");
  $("turn").focus();
});
$("leave").addEventListener("click", () => client.call("leave").catch(() => {}));
$("invite").addEventListener("click", async () => {
  await navigator.clipboard.writeText(location.href);
  $("invite").textContent = "Copied";
  setTimeout(() => ($("invite").textContent = "Copy the link"), 2000);
});
$("again").addEventListener("click", () => sitDown());
$("elsewhere").addEventListener("click", () => {
  location.hash = anyRoom();
});

$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  $("name").setAttribute("aria-invalid", String(name === ""));
  $("name-error").textContent = name === "" ? "How shall the others call you?" : "";
  if (name === "") {
    $("name").focus();
    return;
  }
  localStorage.setItem("name", name);
  sitDown();
});

// -- rooms ------------------------------------------------------------------------------------------------------------------

function anyRoom() {
  return `room-${Math.floor(1000 + Math.random() * 9000)}`;
}

function enterRoom() {
  const wanted = location.hash.slice(1);
  if (!/^[a-z0-9-]{1,30}$/.test(wanted)) {
    location.replace(`#${anyRoom()}`); // which comes back here
    return;
  }
  if (room !== "") {
    location.reload(); // another room is another page
    return;
  }
  room = wanted;
  if (token() !== null && localStorage.getItem("name") !== null) sitDown();
  else goToDoor();
}

addEventListener("hashchange", enterRoom);
enterRoom();
