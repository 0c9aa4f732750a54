// The page: what is picked, what is found, and the state of the connection. All text goes in as text, never as markup.

import { Rpc, guid } from "/rpc.js";

const id = (key) => (/^\d{1,15}$/.test(key) ? Number(key) : null);
const name = (key) => key || null;

// The figures there are to pick, each as the command line writes it: basket_total:42.
const KINDS = {
  price: { method: "IShop.Price:2", key: id, title: (key) => `price of product ${key}`, words: unitPrice },
  basket_total: { method: "IShop.BasketTotal:2", key: id, title: (key) => `total of basket ${key}`, words: money },
  household_spend: { method: "IShop.HouseholdSpend:2", key: id, title: (key) => `spent by household ${key}`, words: money },
  store_revenue: { method: "IShop.StoreRevenue:2", key: id, title: (key) => `revenue of store ${key}`, words: money },
  department_revenue: { method: "IShop.DepartmentRevenue:2", key: name, title: (key) => `revenue of ${key}`, words: money },
};

// Cents, as 12.34.
function money(cents) {
  return decimal(cents, 2, 2);
}

// Thousandths of a cent, to the cent or as fine as they are; none of what was never sold.
function unitPrice(millicents) {
  return millicents === null ? "none" : decimal(millicents, 5, 2);
}

function decimal(number, places, least) {
  const digits = String(Math.abs(number)).padStart(places + 1, "0");
  const whole = digits.slice(0, -places);
  const part = digits.slice(-places);
  const finer = part.slice(least).replace(/0+$/, "");
  return `${number < 0 ? "-" : ""}${whole}.${part.slice(0, least)}${finer}`;
}

const $ = (selector) => document.querySelector(selector);

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function button(text, onclick) {
  return element("button", { type: "button", onclick }, text);
}

// ---- The connection ----

let ticking;

function show(state) {
  clearInterval(ticking);
  const offline = state.name === "waiting" && !navigator.onLine;
  document.documentElement.dataset.state = state.name;
  const words = { connecting: "connecting", connected: "connected", waiting: "reconnecting", refused: "this server does not speak to this page" };
  $("#state").textContent = offline ? "offline" : words[state.name];
  const tick = () => {
    const left = Math.max(1, Math.ceil((state.until - Date.now()) / 1000));
    $("#wait").textContent = state.name === "waiting" ? `in ${left} s` : "";
  };
  tick();
  if (state.name === "waiting") ticking = setInterval(tick, 1000);
}

const rpc = new Rpc(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/rpc/ws`, show);
addEventListener("online", () => rpc.hurry());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) rpc.hurry();
});

// ---- What is picked ----

// Figure -> what ends it. What is picked is in the address, so that it is the same after a reload and in another tab.
const picked = new Map();

function figures() {
  const texts = location.hash.slice(1).split(",").map((text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return "";
    }
  });
  return [...new Set(texts)].filter((figure) => parsed(figure) !== null).slice(0, 100);
}

function parsed(figure) {
  const at = figure.indexOf(":");
  const kind = Object.hasOwn(KINDS, figure.slice(0, at)) ? KINDS[figure.slice(0, at)] : null;
  const key = kind?.key(figure.slice(at + 1)) ?? null;
  return key === null ? null : { kind, key };
}

function pick(...more) {
  location.hash = [...figures(), ...more].map(encodeURIComponent).join(",");
}

function drop(figure) {
  location.hash = figures().filter((other) => other !== figure).map(encodeURIComponent).join(",");
}

function refresh() {
  const wanted = figures();
  for (const [figure, end] of picked) {
    if (wanted.includes(figure)) continue;
    picked.delete(figure);
    end();
  }
  for (const figure of wanted) if (!picked.has(figure)) picked.set(figure, open(figure));
  $("#none").hidden = wanted.length > 0;
}

function open(figure) {
  const { kind, key } = parsed(figure);
  const title = kind.title(key);
  const value = element("output", {}, "…");
  const row = element("li", {}, element("span", {}, title), value);
  row.dataset.figure = figure;
  if (kind === KINDS.price) row.append(priceForm(key));
  const remove = button("Remove", () => drop(figure));
  remove.setAttribute("aria-label", `Remove ${title}`);
  row.append(remove);
  $("#picked").append(row);
  const stop = rpc.watch(kind.method, [key], (result) => {
    const text = result.error ?? kind.words(result.value);
    if (text === value.textContent) return;
    const first = value.textContent === "…";
    value.textContent = text;
    value.classList.toggle("wrong", result.error !== undefined);
    if (!first && !matchMedia("(prefers-reduced-motion: reduce)").matches) value.animate([{ backgroundColor: "#fc06" }, {}], 1500);
  });
  return () => {
    stop();
    row.remove();
  };
}

function priceForm(product) {
  const input = element("input", { name: "price", inputMode: "decimal", autocomplete: "off", maxLength: 20, required: true });
  const said = element("span", { role: "status" });
  const set = element("button", {}, "Set");
  const form = element("form", {}, element("label", {}, "new price ", input), set, said);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    set.disabled = true;
    said.textContent = document.documentElement.dataset.state === "connected" ? "" : "waiting for the server";
    try {
      // By this name it is done once, however often it is sent through outages and restarts.
      await rpc.call("IShop.SetPrice:4", product, input.value.trim(), guid());
      said.textContent = "set";
      input.value = "";
    } catch (error) {
      said.textContent = error.message;
    }
    set.disabled = false;
  });
  return form;
}

addEventListener("hashchange", refresh);
refresh();

// ---- What is found ----

// Shows what a search finds; of several that are under way, what the last one finds.
function finder(list, row) {
  let latest = 0;
  return async (method, ...args) => {
    latest += 1;
    const mine = latest;
    const said = $(`#${list}-said`);
    try {
      const { found, more } = await rpc.call(method, ...args);
      if (mine !== latest) return;
      $(`#${list}`).replaceChildren(...found.map(row));
      said.textContent = found.length === 0 ? "Nothing found." : more ? `The first ${found.length}.` : "";
    } catch (error) {
      if (mine === latest) said.textContent = error.message;
    }
  };
}

function found(text, ...buttons) {
  for (const button of buttons) button.setAttribute("aria-label", `${button.textContent}: ${text}`);
  return element("li", {}, element("span", {}, text), ...buttons);
}

const baskets = finder("baskets", ({ basket, household, store, week }) =>
  found(
    `${basket}: week ${week}, household ${household}, store ${store}`,
    button("Total", () => pick(`basket_total:${basket}`)),
    button("Household", () => pick(`household_spend:${household}`)),
    button("Store", () => pick(`store_revenue:${store}`)),
  ),
);

const products = finder("products", ({ product, department, category }) =>
  found(
    `${product}: ${department}, ${category || "no category"}`,
    button("Price", () => pick(`price:${product}`)),
    button("Department", () => pick(`department_revenue:${department}`)),
    button("Baskets with it", () => baskets("IShop.BasketsWith:2", product)),
  ),
);

function search(form, find, method) {
  const input = form.elements.text;
  const go = () => find(method, input.value.trim());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go();
  });
  input.addEventListener("input", go);
  go();
}

search($("#find-products"), products, "IShop.FindProducts:2");
search($("#find-baskets"), baskets, "IShop.FindBaskets:2");
