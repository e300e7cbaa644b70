// Where the page has the curves that signatures need, they and the page's own code are gzip files in base64, so that the
// page stays small. To read one: copy its block into a file, then `base64 -d < FILE | gunzip`. The policy at the top
// allows the unpacked scripts by their hashes, and no others.
(async () => {
  const unpacked = async (block) => {
    const packed = atob(block.textContent);
    const bytes = new Uint8Array(packed.length);
    for (let at = 0; at < packed.length; at++) bytes[at] = packed.charCodeAt(at);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.type = block.dataset.type;
    script.textContent = await new Response(stream).text();
    return script;
  };
  const blocks = document.querySelectorAll('script[type="application/gzip"]');
  document.head.append(...(await Promise.all(Array.from(blocks, unpacked))));
})();
