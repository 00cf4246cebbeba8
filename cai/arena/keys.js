// Keys press the buttons that can be seen; in a field they are letters.
(() => {
  const buttons = {
    1: "left", ArrowLeft: "left", 2: "right", ArrowRight: "right", 0: "tie", Backspace: "back",
  };
  document.addEventListener("keydown", (event) => {
    const name = buttons[event.key];
    const typing = event.target.closest?.("input, textarea, [contenteditable]");
    if (!name || typing || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    const seen = (id) => {
      const button = document.getElementById(id);
      return button && button.offsetParent !== null && !button.disabled ? button : null;
    };
    const button = seen(`vote-${name}`) || seen(`chat-${name}`);
    if (button) {
      event.preventDefault();
      button.click();
    }
  });
})();
