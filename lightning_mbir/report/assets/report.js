"use strict";
// The viewer of a report: one niivue canvas a panel, all of them at one place and in one window.
(async () => {
  const MOST_CANVASES = 12; // browsers keep 16 WebGL contexts
  const AXES = ["x", "y", "z"], PLANES = { z: "axial", y: "coronal", x: "sagittal" };
  const SHADES = ["#ffffff", "#4fc3f7", "#ffb74d", "#81c784", "#ba68c8", "#e57373", "#fff176", "#4db6ac", "#f06292", "#a1887f"];
  const byId = (name) => document.getElementById(name);
  const data = JSON.parse(byId("data").textContent);
  const [nx, ny, nz] = data.shape;
  const at = data.shape.map((n) => Math.floor(n / 2)); // the voxel that is looked at
  let view = data.window.slice(), peak = data.peak, drawn = null;
  const panels = [], volumes = {};

  const rounded = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(4))));
  const withUnit = (value) => rounded(value) + (data.unit ? ` ${data.unit}` : "");

  async function unpacked(id) {
    const text = atob(byId(id).textContent.trim());
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }

  // A volume as Python packs it: NIfTI-1, little-endian, int16 from byte 352 on, x fastest.
  async function volume(id) {
    if (!volumes[id]) {
      const buffer = await unpacked(id), header = new DataView(buffer);
      volumes[id] = {
        buffer, counts: new Int16Array(buffer, header.getFloat32(108, true)),
        slope: header.getFloat32(112, true), offset: header.getFloat32(116, true),
      };
    }
    return volumes[id];
  }

  async function difference(id, minus) {
    const name = `${id}-${minus}`;
    if (!volumes[name]) {
      const [a, b] = [await volume(id), await volume(minus)];
      const buffer = a.buffer.slice(0), start = buffer.byteLength - a.counts.byteLength;
      const counts = new Int16Array(buffer, start);
      for (let i = 0; i < counts.length; i++) counts[i] = Math.max(-32767, Math.min(32767, a.counts[i] - b.counts[i]));
      new DataView(buffer).setFloat32(116, 0, true);
      volumes[name] = { buffer, counts, slope: a.slope, offset: 0 };
    }
    return volumes[name];
  }

  const valueAt = (of, [x, y, z]) => of.offset + of.slope * of.counts[x + nx * (y + ny * z)];

  function between(of, place) { // trilinear
    const low = place.map((p, k) => Math.max(0, Math.min(data.shape[k] - 1, Math.floor(p))));
    let sum = 0;
    for (let corner = 0; corner < 8; corner++) {
      let weight = 1;
      const voxel = low.map((start, k) => {
        const far = (corner >> k) & 1, share = Math.max(0, Math.min(1, place[k] - start));
        weight *= far ? share : 1 - share;
        return Math.min(start + far, data.shape[k] - 1);
      });
      if (weight) sum += weight * valueAt(of, voxel);
    }
    return sum;
  }

  // What does not need the pictures: tables that can be sorted, and a file to run it again.
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("th").forEach((head, column) => head.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending", body = table.tBodies[0];
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const order = (a, b) => {
        const [p, q] = [key(a), key(b)];
        if ((p === "") !== (q === "")) return p === "" ? 1 : -1; // what failed stays below
        const numbers = Number(p) - Number(q);
        return (up ? 1 : -1) * (Number.isNaN(numbers) ? p.localeCompare(q) : numbers);
      };
      [...body.rows].sort(order).forEach((row) => body.append(row));
    }));
  }
  byId("save")?.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([byId("config").textContent], { type: "text/yaml" }));
    link.download = byId("save").dataset.name;
    link.click();
  });

  const wanted = (panel) => (panel.minus && (panel.kind === "error" || byId("swap").checked) ? "error" : panel.kind);

  async function fill(panel) { // what a panel shows, as niivue has it
    const kind = wanted(panel);
    panel.shown = kind === "error" ? await difference(panel.of, panel.minus) : await volume(panel.of);
    panel.as = kind;
    const [colours, low, high] = range(panel);
    const image = await niivue.NVImage.new(panel.shown.buffer.slice(0), `${panel.of}.nii`, colours, 1, null, low, high);
    if (panel.nv.volumes.length) panel.nv.removeVolume(panel.nv.volumes[0]);
    panel.nv.addVolume(image);
    panel.caption.textContent = kind === "error" && panel.kind !== "error" ? `error of ${panel.name}` : panel.name;
    paint(panel);
  }

  function range(panel) {
    if (panel.as === "grey") return ["gray", view[0], view[1]];
    return panel.as === "error" ? ["errors", -peak, peak] : ["inferno", 0, data.spread];
  }

  function paint(panel) { // the window, and the place
    const [, low, high] = range(panel), image = panel.nv.volumes[0];
    if (image.cal_min !== low || image.cal_max !== high) {
      [image.cal_min, image.cal_max] = [low, high];
      panel.nv.updateGLVolume();
    }
    panel.scale.style.background = {
      grey: "linear-gradient(90deg, #000, #fff)",
      error: "linear-gradient(90deg, #2166ac, #f7f7f7, #b2182b)",
      spread: "linear-gradient(90deg, #000004, #57106e, #bc3754, #f98e09, #fcffa4)",
    }[panel.as];
    panel.ends.replaceChildren(...[low, (low + high) / 2, high].map((value) => {
      const span = document.createElement("span");
      span.textContent = withUnit(value);
      return span;
    }));
    move(panel);
  }

  function move(panel) {
    panel.nv.scene.crosshairPos = panel.nv.vox2frac(at);
    panel.nv.drawScene();
    measure(panel);
    panel.value.textContent = withUnit(valueAt(panel.shown, at));
  }

  function measure(panel) { // a bar of a round length, about a quarter of the first picture wide
    const tile = panel.nv.screenSlices[0];
    if (!tile) return;
    const [left, , width] = tile.leftTopWidthHeight.map((pixels) => pixels / panel.nv.uiData.dpr);
    const zoom = panel.nv.scene.pan2Dxyzmm[3], wide = tile.axCorSag === 2 ? ny * data.spacing[1] : nx * data.spacing[0];
    const power = 10 ** Math.floor(Math.log10(wide / zoom / 4));
    const length = power * [5, 2, 1].find((step) => step * power <= wide / zoom / 4);
    panel.bar.style.left = `${left + 10}px`;
    panel.bar.style.width = `${(width * zoom * length) / wide}px`;
    panel.bar.firstChild.textContent = `${rounded(length)} mm`;
  }

  const open = () => panels.filter((panel) => panel.nv);

  function place(voxel, from = null) { // everything to one voxel
    voxel.forEach((v, k) => { at[k] = Math.max(0, Math.min(data.shape[k] - 1, Math.round(v))); });
    for (const panel of open()) {
      if (panel !== from) move(panel);
      else panel.value.textContent = withUnit(valueAt(panel.shown, at));
    }
    AXES.forEach((axis, k) => {
      byId(`slice-${axis}`).value = at[k];
      byId(`count-${axis}`).textContent = `${at[k] + 1} of ${data.shape[k]}`;
    });
    const mm = data.affine.slice(0, 3).map((row) => row[0] * at[0] + row[1] * at[1] + row[2] * at[2] + row[3]);
    const names = data.sided ? ["LR", "PA", "IS"].map((pair, k) => pair[Number(mm[k] >= 0)]) : AXES;
    byId("place").textContent = `voxel (x, y, z) ${at.join(", ")}; ` +
      mm.map((value, k) => `${names[k]} ${(data.sided ? Math.abs(value) : value).toFixed(1)}`).join(", ") + " mm";
    profile();
  }

  function window_(low, high) {
    if (!(high > low)) return;
    view = [low, high];
    byId("level").value = rounded((low + high) / 2);
    byId("width").value = rounded(high - low);
    for (const button of byId("presets").children) {
      button.classList.toggle("chosen", Number(button.dataset.low) === low && Number(button.dataset.high) === high);
    }
    open().filter((panel) => panel.as === "grey").forEach(paint);
    profile();
  }

  function segment() { // of the profile: two voxels
    const along = byId("line").value;
    if (along === "drawn") return drawn;
    const k = AXES.indexOf(along), [a, b] = [at.slice(), at.slice()];
    [a[k], b[k]] = [0, data.shape[k] - 1];
    return [a, b];
  }

  function profile() {
    const curves = panels.filter((panel) => panel.kind === "grey" && volumes[panel.of] && panel.box.checked);
    const ends = segment();
    if (!curves.length || !ends) return;
    const [a, b] = ends, steps = Math.max(2, 2 * Math.ceil(Math.hypot(...a.map((v, k) => b[k] - v))) + 1);
    const length = Math.hypot(...a.map((v, k) => (b[k] - v) * data.spacing[k]));
    const values = curves.map((panel) => Array.from({ length: steps }, (_, i) =>
      between(volumes[panel.of], a.map((v, k) => v + ((b[k] - v) * i) / (steps - 1)))));
    const flat = values.flat();
    let [low, high] = [Math.min(...flat), Math.max(...flat)];
    if (high === low) [low, high] = [low - 1, high + 1];
    const text = (x, y, words, anchor = "middle", colour = "#9aa4b1") =>
      `<text x="${x}" y="${y}" fill="${colour}" font-size="13" text-anchor="${anchor}">${escaped(words)}</text>`;
    const [W, L, B, plot] = [1000, 70, 40, 290], legend = [];
    let [row, used] = [0, L];
    curves.forEach((panel, k) => { // names above the curves, in as many rows as they need
      const wide = 34 + 8 * panel.name.length;
      if (used > L && used + wide > W) [row, used] = [row + 1, L];
      const [y, colour] = [18 + 18 * row, SHADES[k % SHADES.length]];
      legend.push(`<line x1="${used}" x2="${used + 18}" y1="${y - 4}" y2="${y - 4}" stroke="${colour}" stroke-width="3"/>`,
        text(used + 24, y, panel.name, "start", colour));
      used += wide;
    });
    const T = 34 + 18 * row, H = T + plot + B;
    const X = (share) => L + share * (W - L - 10), Y = (v) => T + plot * (1 - (v - low) / (high - low));
    const parts = ticks(low, high).map((v) => `<line x1="${L}" x2="${W - 10}" y1="${Y(v)}" y2="${Y(v)}" stroke="#2a2f36"/>` +
      text(L - 6, Y(v) + 4, rounded(v), "end"));
    parts.push(...ticks(0, length).map((mm) => text(X(mm / length), T + plot + 18, rounded(mm))),
      text((W + L) / 2, H - 4, "mm along the line"), text(L - 6, 18, data.unit, "end"));
    const k = AXES.indexOf(byId("line").value);
    if (k >= 0 && data.shape[k] > 1) { // where the cross is
      const x = X(at[k] / (data.shape[k] - 1));
      parts.push(`<line class="cross" x1="${x}" x2="${x}" y1="${T}" y2="${T + plot}" stroke="#ffd54f" stroke-dasharray="3 4"/>`);
    }
    curves.forEach((panel, k) => {
      const points = values[k].map((v, i) => `${X(i / (steps - 1)).toFixed(1)},${Y(v).toFixed(1)}`).join(" ");
      parts.push(`<polyline points="${points}" fill="none" stroke="${SHADES[k % SHADES.length]}" stroke-width="1.4" data-of="${panel.of}"/>`);
    });
    byId("profile").innerHTML = `<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="values along a line">${legend.join("")}${parts.join("")}</svg>`;
  }
  function ticks(low, high) { // round numbers, about five
    if (!(high > low)) return [];
    const raw = (high - low) / 5, power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw), found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
    return found;
  }
  const escaped = (words) => words.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);

  function tall(frame) { // as high as what is shown is, for its width
    const [sx, sy, sz] = data.spacing, [x, y, z] = [nx * sx, ny * sy, nz * sz];
    const ratio = { 0: y / x, 1: z / x, 2: z / y, 3: (y + 2 * z) / Math.max(x, y) }[byId("planes").value];
    frame.style.height = `${Math.round(Math.max(60, frame.clientWidth * ratio))}px`;
  }

  async function start(panel) {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    figure.innerHTML = "<figcaption><span></span><output></output></figcaption>" +
      "<div class=frame><div class=bar><span></span></div></div><div class=scale></div><div class=ends></div>";
    [panel.frame, panel.bar] = figure.querySelectorAll(".frame, .bar"); // niivue makes a canvas as large as its frame
    panel.frame.prepend(canvas);
    figure.dataset.of = panel.of;
    [panel.caption, panel.value] = figure.querySelectorAll("span, output");
    panel.scale = figure.querySelector(".scale");
    panel.ends = figure.querySelector(".ends");
    const later = panels.slice(panels.indexOf(panel) + 1).find((other) => other.figure);
    byId("panels").insertBefore(figure, later ? later.figure : null);
    panel.figure = figure;
    tall(panel.frame);
    const nv = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [1, 0.84, 0.31, 0.6], crosshairWidth: 0.25, crosshairWidthUnit: "percent",
      multiplanarPadPixels: 3,
      fontColor: [1, 0.84, 0.31, 1], measureTextColor: [1, 0.84, 0.31, 1], isOrientationTextVisible: data.sided, showAllOrientationMarkers: data.sided,
      isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarLayout: 1, multiplanarShowRender: 0,
      multiplanarForceRender: false, sliceType: Number(byId("planes").value), dragMode: Number(byId("drag").value),
      dragAndDropEnabled: false, loadingText: "", logLevel: "error", viewModeHotKey: "", clipPlaneHotKey: "", fontMinPx: 11, fontSizeScaling: 0.3,
      isForceMouseClickToVoxelCenters: true,
    });
    nv.addColormap("errors", { R: [33, 247, 178], G: [102, 247, 24], B: [172, 247, 43], A: [255, 255, 255], I: [0, 128, 255] });
    await nv.attachToCanvas(canvas);
    panel.nv = nv;
    const words = nv.drawText, letters = nv.drawSliceOrientationText;
    nv.drawText = (from, text, ...rest) => { // on a plate, so that they can be read on any picture
      nv.drawRect([from[0] - 2, from[1] + 1, nv.textWidth(nv.fontPx, text) + 4, nv.fontPx + 1], [0, 0, 0, 0.75]);
      words.call(nv, from, text, ...rest);
    };
    nv.drawSliceOrientationText = ([x, y, wide, high], ...rest) => { // niivue's own cut the right one off
      const thin = high < 5 * nv.fontPx; // where those at the top and at the bottom would lie on one another
      if (thin) nv.drawTextBelow = nv.drawTextAbove = () => {};
      letters.call(nv, [x + 2, y, wide - 6, high], ...rest);
      if (thin) delete nv.drawTextBelow, delete nv.drawTextAbove;
    };
    nv.onLocationChange = (found) => {
      if (found.vox && found.vox.some((v, k) => Math.round(v) !== at[k])) place(found.vox, panel);
      if (nv.opts.dragMode === 3) open().filter((other) => other !== panel).forEach((other) => {
        other.nv.scene.pan2Dxyzmm = nv.scene.pan2Dxyzmm.slice();
        other.nv.drawScene();
        measure(other);
      });
      measure(panel);
    };
    canvas.addEventListener("pointermove", (event) => { // niivue's own goes by whole numbers, and tells nobody
      if (nv.opts.dragMode !== 0 || !(event.buttons & 2)) return;
      const [level, width] = [(view[0] + view[1]) / 2, view[1] - view[0]];
      const wider = width * Math.exp(event.movementX / 200), moved = level - (event.movementY / 300) * width;
      window_(moved - wider / 2, moved + wider / 2);
    });
    nv.onDragRelease = (line) => {
      if (nv.opts.dragMode !== 2 || !(line.mmLength > 0)) return;
      drawn = [Array.from(line.voxStart), Array.from(line.voxEnd)];
      byId("line").querySelector("[value=drawn]").disabled = false;
      byId("line").value = "drawn";
      profile();
    };
    await fill(panel);
  }

  function stop(panel) {
    panel.nv.gl.getExtension("WEBGL_lose_context")?.loseContext();
    panel.figure.remove();
    panel.nv = panel.figure = null;
  }

  // The tools.
  for (const axis of ["z", "y", "x"]) {
    const k = AXES.indexOf(axis), label = document.createElement("label");
    label.innerHTML = `<span>${PLANES[axis]}</span><input type="range" id="slice-${axis}" min="0" max="${data.shape[k] - 1}">` +
      `<span id="count-${axis}"></span>`;
    label.querySelector("input").addEventListener("input", (event) => {
      const voxel = at.slice();
      voxel[k] = Number(event.target.value);
      place(voxel);
    });
    byId("slices").append(label);
  }
  for (const [name, low, high] of data.presets) {
    const button = document.createElement("button");
    [button.type, button.textContent] = ["button", name];
    [button.dataset.low, button.dataset.high] = [low, high];
    button.title = `${withUnit(low)} to ${withUnit(high)}`;
    button.addEventListener("click", () => window_(low, high));
    byId("presets").append(button);
  }
  for (const span of document.querySelectorAll(".unit")) span.textContent = data.unit;
  for (const name of ["level", "width"]) byId(name).addEventListener("change", () => {
    const [level, width] = [Number(byId("level").value), Number(byId("width").value)];
    window_(level - width / 2, level + width / 2);
  });
  byId("errors").hidden = !data.panels.some((panel) => panel.minus);
  byId("peak").value = rounded(peak);
  byId("peak").addEventListener("change", () => {
    if (Number(byId("peak").value) > 0) peak = Number(byId("peak").value);
    open().filter((panel) => panel.as === "error").forEach(paint);
  });
  byId("swap").addEventListener("change", async () => {
    for (const panel of open()) if (wanted(panel) !== panel.as) await fill(panel);
  });
  byId("planes").addEventListener("change", () => open().forEach((panel) => {
    tall(panel.frame);
    panel.nv.setSliceType(Number(byId("planes").value));
    panel.nv.resizeListener();
    measure(panel);
  }));
  byId("drag").addEventListener("change", () => open().forEach((panel) => { panel.nv.opts.dragMode = Number(byId("drag").value); }));
  byId("line").addEventListener("change", profile);
  byId("reset").addEventListener("click", () => {
    open().forEach((panel) => { panel.nv.scene.pan2Dxyzmm = [0, 0, 0, 1]; });
    window_(data.window[0], data.window[1]);
    place(data.shape.map((n) => Math.floor(n / 2)));
  });
  addEventListener("resize", () => open().forEach((panel) => {
    tall(panel.frame);
    panel.nv.resizeListener();
    measure(panel);
  }));

  data.panels.forEach((plan, k) => {
    const label = document.createElement("label"), box = document.createElement("input");
    [box.type, box.checked] = ["checkbox", k < MOST_CANVASES];
    label.append(box, ` ${plan.name}`);
    byId("choice").append(label);
    const panel = { ...plan, box };
    panels.push(panel);
    box.addEventListener("change", async () => {
      if (box.checked && open().length >= MOST_CANVASES) box.checked = false; // as many as browsers show at once
      else if (box.checked) await start(panel);
      else if (panel.nv) stop(panel);
      profile();
    });
  });

  const tell = (words) => { byId("status").textContent = words; };
  if (!document.createElement("canvas").getContext("webgl2")) {
    tell("This browser has no WebGL2, so the volumes are not shown. The pictures beside this file show their middle slices.");
    for (const panel of panels.filter((each) => each.kind === "grey")) await volume(panel.of);
    place(at);
    return;
  }
  try {
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(await unpacked("niivue"));
    document.head.append(script);
    for (const panel of panels) if (panel.box.checked) await start(panel);
    open().forEach((panel) => { // the last ones may have made room beside each other
      tall(panel.frame);
      panel.nv.resizeListener();
    });
    window_(view[0], view[1]);
    place(at);
    tell("");
    document.body.dataset.ready = "true";
  } catch (error) {
    tell(`The volumes cannot be shown: ${error.message}`);
    throw error;
  }
})();
