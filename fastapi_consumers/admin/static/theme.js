// Before anything is drawn, so that nothing flashes. Without storage, as in a private window, it holds for this page.
"use strict";
(() => {
  const names = { auto: "Auto", light: "Light", dark: "Dark" };
  const said = { auto: "as the system has it", light: "light", dark: "dark" };
  let theme = "auto";
  try {
    theme = localStorage.getItem("fastapi_consumers.theme") ?? "auto";
  } catch {}
  if (!(theme in names)) theme = "auto";

  function apply() {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button === null) return;
    button.setAttribute("aria-label", `Colours: ${said[theme]}`);
    document.getElementById("theme-name").textContent = names[theme];
  }

  apply();
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      const order = Object.keys(names);
      theme = order[(order.indexOf(theme) + 1) % order.length];
      try {
        localStorage.setItem("fastapi_consumers.theme", theme);
      } catch {}
      apply();
    });
  });
})();
