// One end of a connection to a Wellspring server: the ActualLab.Rpc wire, protocol 2, format json5np, as far as a page needs it.
//
// Calls and watched values outlive connections. What was asked of a server is asked of it again only if it does not know of it any more; a server that
// was started anew is asked for everything.

const MESSAGE = "\n\x1e";
const ARGUMENT = "\x1f";

// Milliseconds. The server gives a sign of life every ten seconds, and nothing else counts as one.
const SILENCE = 25_000;
const HANDSHAKE = 10_000;
// A connection that was shorter does not start the pauses over.
const SHORT = 15_000;
const PAUSE = { first: 100, most: 10_000 };

// The server does not speak the format: nothing will change that.
const REFUSED = 4001;

export class Rpc {
  #url;
  #tell;
  #socket = null;
  #greeted = false;
  #began = 0;
  #silence;
  #retry;
  #failures = 0;

  #me = guid();
  #hub = guid();
  #index = 0;
  #server = null;

  #last = 0;
  // In the order of their ids, which only grow.
  #calls = new Map();
  #reconnect = null;

  // `tell` hears of each state: { name: "connecting" | "connected" | "waiting" | "refused", until? }.
  constructor(url, tell) {
    this.#url = `${url}?clientId=${base64url(random(16))}&f=json5np`;
    this.#tell = tell;
    this.#connect();
  }

  // Calls a method once, now or when there is a connection.
  call(method, ...args) {
    return new Promise((resolve, reject) => {
      this.#begin({ type: 0, method, args, tell: ({ value, error }) => (error === undefined ? resolve(value) : reject(new Error(error))) });
    });
  }

  // Tells the value of a compute method, and each newer one, as { value } or { error }, until what this returns is called.
  watch(method, args, tell) {
    const call = { type: 1, method, args, tell };
    this.#begin(call);
    return () => {
      if (this.#calls.delete(call.id) && call.sent && this.#greeted) this.#send("$sys.Cancel:0", call.id, 0, []);
    };
  }

  // Does not wait any longer for the next attempt.
  hurry() {
    if (this.#socket === null && this.#retry !== undefined) this.#connect();
  }

  #begin(call) {
    this.#last += 1;
    Object.assign(call, { id: this.#last, sent: false, answered: false });
    this.#calls.set(call.id, call);
    if (this.#greeted) this.#put(call);
  }

  #put(call) {
    call.sent = true;
    this.#send(call.method, call.id, call.type, call.args);
  }

  // The value is stale, or nobody would say so.
  #again(call) {
    this.#calls.delete(call.id);
    this.#begin(call);
  }

  #send(method, id, type, args) {
    const head = JSON.stringify({ Method: method, RelatedId: id, CallType: type });
    this.#socket.send(head + "\n" + args.map((arg) => JSON.stringify(arg)).join(ARGUMENT));
  }

  #connect() {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#tell({ name: "connecting" });
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#began = 0;
    this.#index += 1;
    this.#listen(HANDSHAKE);
    const mine = (then) => (event) => {
      if (this.#socket === socket) then(event);
    };
    socket.onopen = mine(() => {
      const handshake = { RemotePeerId: this.#me, RemoteApiVersionSet: null, RemoteHubId: this.#hub, ProtocolVersion: 2, Index: this.#index };
      this.#send("$sys.Handshake:1", 0, 0, [handshake]);
    });
    socket.onmessage = mine((event) => this.#receive(event.data));
    socket.onclose = mine((event) => this.#lost(event.code));
  }

  // Gives the connection up unless a sign of life comes within the time.
  #listen(time) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#drop(), time);
  }

  // Does not wait for the other end to agree, which may be gone.
  #drop() {
    const socket = this.#socket;
    this.#lost();
    socket.close();
  }

  #lost(code) {
    clearTimeout(this.#silence);
    this.#socket = null;
    this.#greeted = false;
    this.#reconnect = null;
    if (code === REFUSED) {
      for (const call of this.#calls.values()) call.tell({ error: "the server does not speak this page's language" });
      this.#calls.clear();
      this.#tell({ name: "refused" });
      return;
    }
    if (this.#began > 0 && Date.now() - this.#began >= SHORT) this.#failures = 0;
    const pause = Math.min(PAUSE.most, PAUSE.first * 2 ** this.#failures) * (0.75 + Math.random() / 2);
    this.#failures += 1;
    this.#retry = setTimeout(() => this.#connect(), pause);
    this.#tell({ name: "waiting", until: Date.now() + pause });
  }

  #receive(frame) {
    if (typeof frame !== "string") return this.#drop();
    for (const message of frame.split(MESSAGE)) {
      const end = message.indexOf("\n");
      let head, args;
      try {
        head = JSON.parse(message.slice(0, end));
        const rest = message.slice(end + 1);
        args = rest === "" ? [] : rest.split(ARGUMENT).map((arg) => (arg === "" ? null : JSON.parse(arg)));
      } catch {
        // What cannot be read is passed over, and only that.
        continue;
      }
      // The last one may have ended the connection.
      if (this.#socket === null) return;
      this.#handle(head?.Method, head?.RelatedId ?? 0, args);
    }
  }

  #handle(method, id, args) {
    if (!this.#greeted) {
      if (method === "$sys.Handshake:1") this.#greet(args[0]);
      else this.#drop();
      return;
    }
    switch (method) {
      case "$sys.Ok:1":
        return this.#answered(id, { value: args[0] ?? null });
      case "$sys.Error:1":
        return this.#answered(id, { error: args[0]?.message ?? args[0]?.Message ?? "the call failed" });
      case "$sys-c.Invalidate:0": {
        const call = this.#calls.get(id);
        if (call?.type === 1) this.#again(call);
        return;
      }
      case "$sys.KeepAlive:1":
        this.#listen(SILENCE);
        // In answer to the server's, and not by a timer: those of a hidden tab come once a minute.
        this.#send("$sys.KeepAlive:1", 0, 0, [[]]);
        // There are no streams here.
        if (args[0]?.length > 0) this.#send("$sys.Disconnect:1", 0, 0, [args[0]]);
    }
  }

  #greet(handshake) {
    const server = handshake?.remotePeerId ?? handshake?.RemotePeerId;
    if (typeof server !== "string" || (handshake.protocolVersion ?? handshake.ProtocolVersion) !== 2) return this.#drop();
    const same = server === this.#server;
    this.#server = server;
    this.#greeted = true;
    this.#began = Date.now();
    this.#listen(SILENCE);
    this.#tell({ name: "connected" });
    const calls = [...this.#calls.values()];
    if (same) return this.#reconcile(handshake.index ?? handshake.Index, calls);
    for (const call of calls) {
      if (call.answered) this.#again(call);
      else this.#put(call);
    }
  }

  // Says what is waited for: 0 for an answer, 1 for the end of a value. The answer is what the server does not know.
  #reconcile(index, calls) {
    const asked = calls.filter((call) => call.sent);
    if (asked.length > 0) {
      const stages = {};
      for (const call of asked) (stages[call.answered ? 1 : 0] ??= []).push(call.id);
      for (const stage of Object.keys(stages)) stages[stage] = packed(stages[stage]);
      this.#last += 1;
      this.#reconnect = { id: this.#last, asked };
      this.#send("$sys.Reconnect:3", this.#last, 0, [index, stages]);
    }
    for (const call of calls) if (!call.sent) this.#put(call);
  }

  #reconciled({ value, error }) {
    const { asked } = this.#reconnect;
    this.#reconnect = null;
    const unknown = error === undefined ? new Set(unpacked(value ?? "")) : null;
    for (const call of asked) {
      // It may be over by now; and if the server has refused to say, it knows nothing.
      if (this.#calls.get(call.id) !== call || (unknown !== null && !unknown.has(call.id))) continue;
      if (call.answered) this.#again(call);
      else this.#put(call);
    }
  }

  #answered(id, result) {
    if (this.#reconnect?.id === id) return this.#reconciled(result);
    const call = this.#calls.get(id);
    if (call === undefined) return;
    if (call.type === 0) this.#calls.delete(id);
    call.answered = true;
    call.tell(result);
  }
}

function random(bytes) {
  return crypto.getRandomValues(new Uint8Array(bytes));
}

function binary(bytes) {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

function base64url(bytes) {
  return btoa(binary(bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// Not `crypto.randomUUID`, which is only there for pages of this machine or over TLS.
export function guid() {
  const bytes = random(16);
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

// Ascending ids as the differences between them, seven bits a byte, in base64.
function packed(ids) {
  const bytes = [];
  let before = 0;
  for (const id of ids) {
    let rest = id - before;
    for (; rest > 127; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
    bytes.push(rest);
    before = id;
  }
  return btoa(binary(bytes));
}

function unpacked(text) {
  const ids = [];
  let id = 0;
  let difference = 0;
  let scale = 1;
  for (const char of atob(text)) {
    const byte = char.charCodeAt(0);
    difference += (byte & 127) * scale;
    scale *= 128;
    if (byte > 127) continue;
    id += difference;
    ids.push(id);
    difference = 0;
    scale = 1;
  }
  return ids;
}
