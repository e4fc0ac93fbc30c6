// Attempts of the last minutes as columns: successful ones upwards, failed ones in front of them.
import { html, now } from "./lib.js";

export const MINUTES = 15;
export const STEP_S = 15;
const COLUMNS = (MINUTES * 60) / STEP_S;
const HEIGHT = 24;

// periods: of one endpoint, as /v1/attempts/counts has them.
export function Sparkline({ periods }) {
  const step = STEP_S * 1000;
  const last = Math.floor(now() / step);
  const columns = new Map(periods.map((each) => [Math.floor(Date.parse(each.at) / step), each]));
  const most = Math.max(1, ...periods.map((each) => each.ok + each.failed));
  const total = periods.reduce((sum, each) => [sum[0] + each.ok, sum[1] + each.failed], [0, 0]);
  const drawn = [];
  for (let n = 0; n < COLUMNS; n += 1) {
    const period = columns.get(last - COLUMNS + 1 + n);
    if (!period) continue;
    const scale = (value) => (value ? Math.max(1.5, (value / most) * HEIGHT) : 0);
    const failed = scale(period.failed);
    const ok = Math.min(HEIGHT - failed, scale(period.ok));
    if (ok) drawn.push(html`<rect class="ok" x=${n * 2} y=${HEIGHT - failed - ok} width="1.5" height=${ok} />`);
    if (failed) drawn.push(html`<rect class="failed" x=${n * 2} y=${HEIGHT - failed} width="1.5" height=${failed} />`);
  }
  const said = `Last ${MINUTES} minutes: ${total[0]} successful and ${total[1]} failed attempts`;
  return html`<svg class="sparkline" viewBox=${`0 0 ${COLUMNS * 2} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${said}>
    <title>${said}</title><line class="base" x1="0" x2=${COLUMNS * 2} y1=${HEIGHT - 0.25} y2=${HEIGHT - 0.25} />${drawn}
  </svg>`;
}
