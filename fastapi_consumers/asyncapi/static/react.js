// Hands the document to the standard AsyncAPI component, whose script comes before this one.
const place = document.getElementById("asyncapi");
// The component brings no font along.
document.body.style.fontFamily = "system-ui, sans-serif";
if (globalThis.AsyncApiStandalone) {
  globalThis.AsyncApiStandalone.render({
    schema: { url: new URL(document.body.dataset.document, location.href).href },
    config: { show: { sidebar: true } },
  }, place);
} else {
  place.textContent = "The AsyncAPI component could not be loaded.";
}
