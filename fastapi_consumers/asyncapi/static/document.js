// The document as the page needs it: channels with their actions, events and notices, references followed.

/** An AsyncAPI 3.0 document that has been fetched. */
export class Api {
  constructor(document) {
    this.document = document;
    this.channels = Object.entries(document.channels ?? {}).map(([key, channel]) => new Channel(this, key, channel));
    const byKey = new Map(this.channels.map((channel) => [channel.key, channel]));
    for (const [key, operation] of Object.entries(document.operations ?? {})) {
      byKey.get(lastOf(operation.channel.$ref))?.add(key, operation);
    }
  }

  /** What a value stands for: itself, or what its `$ref` names. What stands beside a `$ref` wins. */
  resolve(value) {
    let found = value;
    for (let steps = 0; found && typeof found === "object" && found.$ref && steps < 20; steps++) {
      const { $ref, ...rest } = found;
      let target = this.document;
      for (const part of $ref.replace(/^#\//, "").split("/")) target = target?.[unescape(part)];
      found = target && typeof target === "object" ? { ...target, ...rest } : {};
    }
    return found ?? {};
  }

  /** The security schemes of an operation, each with its `name`. */
  security(operation) {
    return (operation.security ?? []).map((entry) => {
      // A scheme may have a name of its own: that of its header, cookie or parameter.
      const { name: parameter, ...scheme } = this.resolve(entry);
      return { ...scheme, parameter, name: entry.$ref ? lastOf(entry.$ref) : entry.type };
    });
  }
}

class Channel {
  constructor(api, key, channel) {
    Object.assign(this, { api, key, channel, actions: [], events: [], notices: [], frames: [] });
    this.title = channel.title ?? key;
    this.address = channel.address ?? "";
    this.tags = (channel.tags ?? []).map((tag) => api.resolve(tag).name);
    /** Names in the address, in order. */
    this.parameters = Object.entries(channel.parameters ?? {}).map(([name, value]) => ({ name, ...api.resolve(value) }));
    this.security = [];
  }

  add(key, operation) {
    for (const scheme of this.api.security(operation)) {
      if (!this.security.some((other) => other.name === scheme.name)) this.security.push(scheme);
    }
    const messages = (operation.messages ?? []).map((message) => this.api.resolve(message));
    const entry = { key, operation, messages, title: operation.title ?? key };
    if (operation["x-action"]) this.actions.push(new Action(this.api, entry));
    else if (operation.title === "notices") this.notices = messages;
    else if (operation.action === "receive") this.frames.push(entry);
    else if (messages.some((message) => this.api.resolve(message.payload).properties?.type?.const === "event")) this.events.push(entry);
    else this.frames.push(entry);
  }

  /** Whether frames have no envelope, so that text is all that can be sent. */
  get isRaw() {
    return this.actions.length === 0;
  }
}

class Action {
  constructor(api, { key, operation, messages, title }) {
    Object.assign(this, { api, key, operation, title });
    this.name = operation["x-action"];
    this.summary = operation.summary ?? "";
    this.request = api.resolve(messages[0]?.payload);
    this.replies = (operation.reply?.messages ?? []).map((message) => api.resolve(message));
  }

  get isBuiltIn() {
    return Boolean(this.operation["x-built-in"]);
  }

  /** Whether its requests have the native envelope, in which the payload is `data`. */
  get isNative() {
    return this.request.properties?.action?.const === this.name && !this.request.allOf;
  }

  /** The schema of what it takes; undefined if it takes nothing. */
  get data() {
    return this.isNative ? this.request.properties.data : this.request;
  }

  get isDataRequired() {
    return (this.request.required ?? []).includes("data");
  }

  /** The schema of what a reply of this status holds; undefined if there is no such reply. */
  reply(status) {
    const message = this.replies.find((reply) => reply.name === `${this.name}.${status}`);
    if (!message) return undefined;
    const payload = this.api.resolve(message.payload);
    return payload.properties?.[status === "error" ? "error" : "data"] ?? payload;
  }

  /** The codes that an error may have, with what they mean. */
  get errors() {
    const code = this.api.resolve(this.reply("error"))?.properties?.code;
    return (code?.anyOf ?? []).filter((entry) => entry.const).map((entry) => ({
      code: entry.const,
      text: entry.description,
      closeCode: entry["x-close-code"],
      isRetryable: Boolean(entry["x-retryable"]),
    }));
  }
}

const unescape = (part) => decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");

const lastOf = (reference) => unescape(reference.slice(reference.lastIndexOf("/") + 1));
