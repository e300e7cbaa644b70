// Where the page has the curves that signatures need, they and the page's own code are gzip files in base64, so that the
// page stays small. To read one: copy its block into a file, then `base64 -d < FILE | gunzip`. The policy at the top
// allows the unpacked scripts by their hashes, and no others.
(async () => {
  for (const block of document.querySelectorAll('script[type="application/gzip"]')) {
    const bytes = Uint8Array.from(atob(block.textContent), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.type = block.dataset.type;
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }
})();
