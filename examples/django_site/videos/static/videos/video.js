// When the task is over: the page with the video, or the way to what has failed.
document.addEventListener("framelane:end", function (event) {
  "use strict";
  if (event.detail && event.detail.state === "SUCCESS") {
    window.location.reload();
  } else {
    document.getElementById("failed").hidden = false;
  }
});
