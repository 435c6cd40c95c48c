// The page: questions, and under each its answer as it comes.

import { Agent } from "/static/agent.js";

const STATES = { connecting: "Connecting", open: "Connected", waiting: "Offline, trying again" };

const $ = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const agent = new Agent(new URL("/ws", location.href.replace(/^http/, "ws")), (state) => {
  $("state").textContent = STATES[state];
  $("state").dataset.state = state;
});

/** What is said of an answer that has ended. */
function verdict(error, words) {
  const count = words === 1 ? "1 word" : `${words} words`;
  if (error === null) return count;
  if (error.code === "cancelled") return `Stopped after ${count}`;
  if (error.code === "throttled") return `Not so fast: try again in ${Math.ceil(error.retry_after ?? 1)} s`;
  return error.message;
}

/** Whether the end of the talk is to be seen: only then does the page follow it. */
function isAtEnd() {
  const main = $("main");
  return main.scrollHeight - main.scrollTop - main.clientHeight < 80;
}

function follow() {
  $("main").scrollTop = $("main").scrollHeight;
}

function ask(question) {
  $("hello").hidden = true;
  $("error").textContent = "";
  $("question").removeAttribute("aria-invalid");
  const text = make("p", { className: "answer" });
  const note = make("span", { className: "note", textContent: "Thinking" });
  const button = make("button", { type: "button", textContent: "Stop" });
  const article = make(
    "article",
    { className: "busy" },
    make("h2", { className: "question", textContent: question }),
    text,
    make("p", { className: "foot" }, note, button),
  );
  article.setAttribute("aria-busy", "true");
  article.setAttribute("aria-label", question);
  $("talk").append(article);
  follow();
  let words = 0;

  function onPart(part) {
    const isFollowed = isAtEnd();
    words += 1;
    text.append(part);
    note.textContent = "Answering";
    if (isFollowed) follow();
  }

  function onEnd(error) {
    if (error?.code === "invalid_data") {
      article.remove();
      $("hello").hidden = $("talk").childElementCount > 0;
      $("error").textContent = error.details[0].type === "string_too_short"
        ? "Write a question first." : `${error.details[0].message}.`;
      $("question").setAttribute("aria-invalid", "true");
      $("question").value = question;
      return;
    }
    article.classList.remove("busy");
    article.removeAttribute("aria-busy");
    note.textContent = verdict(error, words);
    // Words are not announced one by one, but what they came to.
    $("said").textContent = `${text.textContent} ${error === null ? "" : note.textContent}`;
    if (error === null) {
      if (document.activeElement === button) $("question").focus();
      button.remove();
    } else {
      button.textContent = "Ask again";
      button.onclick = () => {
        article.remove();
        ask(question);
        $("question").focus();
      };
    }
  }

  const id = agent.ask(question, { onPart, onEnd });
  // If there was no connection it has ended already.
  if (article.classList.contains("busy")) button.onclick = () => agent.cancel(id);
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("question").value;
  $("question").value = "";
  ask(question);
});
$("ideas").addEventListener("click", ({ target }) => {
  if (target.tagName !== "BUTTON") return;
  $("question").focus();
  ask(target.textContent);
});
