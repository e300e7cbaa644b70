// What of WCAG 2.2 AA a script can find in the page, as a list of sentences: contrast, names, headings, landmarks,
// sizes of targets, and what is wider than the screen. An expression: its value is the list.
(() => {
  const found = [];
  const shown = (element) => element.checkVisibility() && element.getClientRects().length > 0;
  const label = (element) => `${element.tagName.toLowerCase()}#${element.id}.${element.className}`;

  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = ([red, green, blue]) => {
    const linear = (value) => (value <= 10.31475 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  };
  const background = (element) => {
    for (let each = element; each !== null; each = each.parentElement) {
      const colour = channels(getComputedStyle(each).backgroundColor);
      if ((colour[3] ?? 1) > 0) return colour;
    }
    return channels(getComputedStyle(document.documentElement).colorScheme.includes("dark") ? "0 0 0" : "255 255 255");
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (walker.currentNode.data.trim() === "" || !shown(element) || element.closest("script, .unseen")) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    const ratio = contrast(channels(style.color), background(element));
    if (ratio < least) found.push(`contrast ${ratio.toFixed(2)} of ${label(element)}: ${walker.currentNode.data.trim()}`);
    if (size < 12) found.push(`${size} px: ${label(element)}`);
  }

  for (const field of document.querySelectorAll("input, textarea, button")) {
    if (!shown(field)) continue;
    const name = field.labels?.[0]?.textContent || field.textContent;
    if (!name.trim()) found.push(`no label: ${label(field)}`);
  }
  for (const target of document.querySelectorAll("a, button, summary, input, textarea")) {
    const { width, height } = target.getBoundingClientRect();
    if (shown(target) && (width < 24 || height < 24)) found.push(`target of ${width} by ${height}: ${label(target)}`);
  }
  for (const [selector, count] of [["main", 1], ["header", 1], ["footer", 1], ["h1", 1], ["[role=status]", 1]]) {
    if (document.querySelectorAll(selector).length !== count) found.push(`not ${count} ${selector}`);
  }
  let level = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
    if (!shown(heading)) continue;
    if (!heading.textContent.trim()) found.push(`empty heading ${label(heading)}`);
    if (Number(heading.tagName[1]) > level + 1) found.push(`heading out of order: ${heading.textContent}`);
    level = Number(heading.tagName[1]);
  }
  for (const section of document.querySelectorAll("section")) {
    if (!document.getElementById(section.getAttribute("aria-labelledby"))) found.push(`no name: ${label(section)}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push(`twice: ${id}`);
  for (const mark of document.querySelectorAll("li .mark")) {
    if (!mark.parentElement.querySelector(".state").textContent) found.push("a mark without a word");
  }
  for (const element of document.querySelectorAll("body *")) {
    if (shown(element) && element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5) found.push(`wider: ${label(element)}`);
  }
  if (document.documentElement.scrollWidth > document.documentElement.clientWidth) found.push("the page scrolls sideways");
  return found;
})()
