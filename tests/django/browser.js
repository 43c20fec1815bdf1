// A page with one progress bar, as much of a browser as progress.js asks for. argv: the script, the answers as JSON.
// Prints what the person saw and heard: [{ms, percent, text}], the classes and the events. Time is made up.
const answers = JSON.parse(process.argv[3]), seen = [], events = [], classes = [], attributes = {};
let now = 0, timers = [], asked = [];
const bar = { value: 0 };
const line = { _text: "", changes: 0, get textContent() { return this._text; }, set textContent(t) { this._text = t; this.changes += 1; } };
const box = {
  dataset: { framelaneStatus: "/status/t/" },
  querySelector: (what) => (what === "progress" ? bar : line),
  classList: { add: (name) => classes.push(name) },
  setAttribute: (name) => { attributes[name] = true; },
  dispatchEvent: (event) => events.push([event.type, event.bubbles, event.detail && event.detail.state]),
};
global.CustomEvent = class { constructor(type, init) { this.type = type; Object.assign(this, init); } };
global.document = {
  readyState: "interactive", hidden: false,
  querySelectorAll: () => ({ forEach: (act) => { if (!attributes["data-framelane-followed"]) { act(box); } } }),
};
global.setTimeout = (act, ms) => timers.push([now + ms, act]);
global.fetch = (url, init) => {
  asked.push(now);
  const answer = answers.length > 1 ? answers.shift() : answers[0];
  if (answer === null) { return Promise.reject(new TypeError("offline")); }
  if (typeof answer === "number") { return Promise.resolve({ ok: false, status: answer }); }
  return Promise.resolve({ ok: true, status: 200, json: () => Promise.resolve(answer) });
};
const code = require("fs").readFileSync(process.argv[2], "utf8");
(async () => {
  new Function(code)();
  new Function(code)(); // a page with two bars has the script twice
  for (let turns = 0; turns < 400; turns++) {
    for (let i = 0; i < 10; i++) { await Promise.resolve(); }
    seen.push({ ms: now, percent: bar.value, text: line.textContent });
    const next = timers.shift();
    if (!next || now > 600000) { break; }
    [now] = next;
    next[1]();
  }
  console.log(JSON.stringify({ seen, asked, classes, events, spoken: line.changes, waits: timers.length }));
})();
