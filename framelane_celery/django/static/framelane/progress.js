// Follows tasks: each element with data-framelane-status is asked for at that URL until its task is over.
// The bar moves with the percents. The text, which a screen reader speaks, changes only when there is news.
// At the end the element gets the class framelane-done or framelane-failed, and a bubbling event "framelane:end".
(function () {
  "use strict";
  var FIRST_MS = 1000, LONGEST_MS = 15000, GROWS = 1.3, GIVE_UP_AFTER = 20;
  var WORDS = { PENDING: "Waiting for a worker", PROGRESS: "In progress", STARTED: "In progress", RETRY: "Trying again",
    SUCCESS: "Done", FAILURE: "Failed", REVOKED: "Cancelled", ENDED: "Ended" };

  function textOf(known) {
    var text = WORDS[known.state] || known.state;
    if (known.description && !known.is_over && known.state !== "PENDING") { text += ": " + known.description; }
    if (known.code && known.is_over) { text += " (" + known.code + ")"; }
    return text;
  }

  function follow(box) {
    var bar = box.querySelector("progress"), line = box.querySelector("[data-framelane-text]");
    var wait = FIRST_MS, misses = 0, last = "";

    function tell(text) {
      if (line.textContent !== text) { line.textContent = text; }
    }

    function end(name, known) {
      box.classList.add("framelane-" + name);
      box.dispatchEvent(new CustomEvent("framelane:end", { bubbles: true, detail: known }));
    }

    function show(known) {
      var now = known.state + known.percent + known.description;
      wait = now === last ? Math.min(wait * GROWS, LONGEST_MS) : FIRST_MS;
      last = now;
      misses = 0;
      bar.value = known.percent;
      tell(textOf(known));
      if (known.is_over) { return end(known.state === "SUCCESS" ? "done" : "failed", known); }
      again();
    }

    // A task called on commit is not there yet, and a server may be away for a while: not at once, nor for ever.
    function miss(status) {
      misses += 1;
      wait = Math.min(wait * 2, LONGEST_MS);
      if (misses < GIVE_UP_AFTER && (status !== 404 || misses < 5)) { return again(); }
      tell(status === 404 ? "Not found" : "No answer (" + (status || "offline") + ")");
      end("failed", null);
    }

    function again() {
      setTimeout(ask, document.hidden ? LONGEST_MS : wait);
    }

    function ask() {
      fetch(box.dataset.framelaneStatus, { headers: { Accept: "application/json" }, credentials: "same-origin" })
        .then(function (answer) {
          if (!answer.ok) { return miss(answer.status); }
          return answer.json().then(show);
        })
        .catch(function () { miss(0); });
    }

    ask();
  }

  function start() {
    document.querySelectorAll("[data-framelane-status]:not([data-framelane-followed])").forEach(function (box) {
      box.setAttribute("data-framelane-followed", "");
      follow(box);
    });
  }

  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", start);
  } else {
    start();
  }
})();
