// Draws a clip as it is so many milliseconds after its beginning; it begins again by itself.
function draw(canvas, clip, passed) {
  const [left, bottom, right, top] = clip.box, styles = getComputedStyle(document.documentElement);
  const pen = canvas.getContext("2d"), colour = name => styles.getPropertyValue("--" + name);
  const scale = Math.min(canvas.width / (right - left), canvas.height / (top - bottom));
  const x = v => canvas.width / 2 + scale * (v - (left + right) / 2);
  const y = v => canvas.height / 2 - scale * (v - (bottom + top) / 2);
  // It stays at its last frame for a moment before it begins again.
  const number = Math.floor(Math.max(0, passed) / 1000 * clip.rate) % (clip.frames.length + Math.ceil(clip.rate / 2));
  const frame = clip.frames[Math.min(number, clip.frames.length - 1)];
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const thin = 1.5 * canvas.width / (canvas.clientWidth || canvas.width);  // on a small screen lines would vanish
  pen.lineCap = pen.lineJoin = "round";
  for (const [style, ...points] of [...frame].sort((a, b) => (b[0] == 3) - (a[0] == 3) || (a[0] != 0) - (b[0] != 0))) {
    pen.strokeStyle = colour(["soft", "body", "front", "back", "goal"][style]);
    pen.lineWidth = Math.max([2, 12, 9, 9, 4][style], thin);
    pen.beginPath();
    for (let i = 0; i < points.length; i += 2) pen.lineTo(x(points[i]), y(points[i + 1]));
    pen.stroke();
  }
  pen.fillStyle = colour("line");
  pen.fillRect(0, canvas.height - 5, canvas.width * Math.min(1, (number + 1) / clip.frames.length), 5);
}
