"use strict";
document.querySelectorAll("th[scope=col] button").forEach(function (button) {
  var head = button.closest("th");
  button.addEventListener("click", function () {
    var body = head.closest("table").tBodies[0];
    var up = head.getAttribute("aria-sort") !== "ascending";
    head.parentNode.querySelectorAll("[aria-sort]").forEach(function (other) {
      other.removeAttribute("aria-sort");
    });
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    Array.from(body.rows).sort(function (a, b) {
      var x = a.cells[head.cellIndex].textContent, y = b.cells[head.cellIndex].textContent;
      var gap = parseFloat(x) - parseFloat(y);
      if (isNaN(gap)) { gap = x.localeCompare(y); }
      return up ? gap : -gap;
    }).forEach(function (row) { body.appendChild(row); });
  });
});
var folded = [];
window.addEventListener("beforeprint", function () {
  folded = Array.from(document.querySelectorAll("details:not([open])"));
  folded.forEach(function (fold) { fold.open = true; });
});
window.addEventListener("afterprint", function () {
  folded.forEach(function (fold) { fold.open = false; });
});
