"""How the report looks: on a screen in light and dark, on a phone, and on paper. Fonts are those of the reader."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fcfcfa; --ink: #1d2125; --soft: #5c646d; --rule: #dfe1e3; --wash: #f1f2f0; --link: #1f5d96;
  --bar: #9fc1de; --right: #1a7048; --wrong: #a8401a;
  --c-prediction: #1d2125; --c-image: #0072b2; --c-mining: #c75a00; --c-pooling: #00815f; --c-other: #a64f83;
  --c-batches: #8b929a;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #15181b; --ink: #e4e6e8; --soft: #9ba3ab; --rule: #32373c; --wash: #1d2125; --link: #86b9e4;
    --bar: #2f5f87; --right: #62c495; --wrong: #f0956c;
    --c-prediction: #f2f3f4; --c-image: #56b4e9; --c-mining: #e69f00; --c-pooling: #2bbd92; --c-other: #dc95be;
    --c-batches: #7b838b;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
.frame { max-width: 76rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
header, main { min-width: 0; max-width: 58rem; }
main > section:first-child > h2 { margin-top: 2.2rem; }
h1, h2, h3 { line-height: 1.25; font-weight: 600; text-wrap: balance; }
h1 { font-size: 1.9rem; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; margin: 3.75rem 0 .9rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.05rem; margin: 2.25rem 0 .6rem; }
p, ul { margin: .6rem 0; max-width: 44rem; }
a { color: var(--link); text-underline-offset: .15em; }
code, .file { font: .88em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { background: var(--wash); border-radius: 4px; padding: .1em .35em; overflow-wrap: anywhere; }
.command { display: block; margin-top: .5rem; padding: .6rem .8rem; }
.file { overflow-wrap: anywhere; color: var(--soft); }
.soft, figcaption { color: var(--soft); }
.right { color: var(--right); } .wrong { color: var(--wrong); }
.notice { border-left: 3px solid var(--wrong); background: var(--wash); padding: .6rem .9rem; max-width: 44rem; }
td, th, figcaption, dd, dt, li { unicode-bidi: isolate; }

nav { font-size: .92rem; }
nav ul { list-style: none; margin: 1.6rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }

.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: 1.1rem 2rem; margin: 1.8rem 0;
}
.tiles div { border-top: 2px solid var(--rule); padding-top: .5rem; }
.tiles dt { color: var(--soft); font-size: .88rem; }
.tiles dd { margin: 0; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.tiles dd small { font-size: .82rem; color: var(--soft); display: block; }

.scroll {  /* a shadow on the side where there is more */
  overflow-x: auto;
  background:
    linear-gradient(to right, var(--paper) 30%, transparent) left / 2.5rem 100% no-repeat local,
    linear-gradient(to left, var(--paper) 30%, transparent) right / 2.5rem 100% no-repeat local,
    linear-gradient(to right, var(--rule), transparent) left / .8rem 100% no-repeat scroll,
    linear-gradient(to left, var(--rule), transparent) right / .8rem 100% no-repeat scroll;
}
figcaption + .scroll { margin-top: .6rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .94rem; }
th, td { text-align: left; vertical-align: baseline; padding: .38rem 1.4rem .38rem 0; }
th, td { border-bottom: 1px solid var(--rule); }
th { font-weight: 600; font-size: .88rem; color: var(--soft); }
th.number, td.number { text-align: right; white-space: nowrap; }
td.bar { min-width: 7rem; }
td.bar span { display: block; height: .6rem; border-radius: 2px; background: var(--bar); }

figure { margin: 1.2rem 0; }
figcaption { font-size: .9rem; line-height: 1.45; margin-top: .5rem; max-width: 44rem; }
img { display: block; width: 100%; height: auto; border-radius: 3px; background: var(--wash); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(12.5rem, 1fr)); gap: 1.5rem 1.25rem; }
.cards.pairs { grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); }
.cards.wide { grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); }
.cards figure { margin: 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 3px; }
.pair .none { background: var(--wash); display: grid; place-items: center; color: var(--soft); font-size: .85rem; }

svg { max-width: 100%; height: auto; font-family: inherit; }
.scroll.large svg { min-width: 40rem; width: 100%; display: block; }
.chart { display: block; width: 100%; max-width: 48rem; font-size: 12px; }
.chart text { fill: var(--soft); font-variant-numeric: tabular-nums; }
.chart .y { text-anchor: end; } .chart .x { text-anchor: middle; }
.chart .grid, .chart .tick { stroke: var(--rule); } .chart .stage { stroke: var(--soft); stroke-dasharray: 2 3; }
.chart g { color: var(--c-other); }
.chart polyline { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; }
.chart circle { fill: currentColor; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.3rem; list-style: none; padding: 0; font-size: .9rem; }
.legend svg { width: 1.8rem; height: .7rem; vertical-align: baseline; margin-right: .45rem; overflow: visible; }
.legend line { stroke: currentColor; stroke-width: 2.2; }
.legend g { color: var(--c-other); }
.chart .curve-prediction, .legend .curve-prediction { color: var(--c-prediction); }
.curve-prediction polyline { stroke-width: 2.6; }
.chart .curve-training_loss, .legend .curve-training_loss { color: var(--c-image); }
.chart .curve-image_classifier, .legend .curve-image_classifier { color: var(--c-image); }
.chart .curve-scale_mining, .legend .curve-scale_mining { color: var(--c-mining); }
.curve-scale_mining :is(polyline, line) { stroke-dasharray: 7 3; }
.chart .curve-oriented_pooling, .legend .curve-oriented_pooling { color: var(--c-pooling); }
.curve-oriented_pooling :is(polyline, line) { stroke-dasharray: 2 3; }
.chart .curve-training_batches, .legend .curve-training_batches { color: var(--c-batches); }
.curve-training_batches :is(polyline, line) { stroke-width: 1.2; }

details { margin: .5rem 0; }
summary { cursor: pointer; font-weight: 600; padding: .15rem 0; }
details > .inside { margin: .2rem 0 .6rem .3rem; padding-left: .95rem; border-left: 1px solid var(--rule); }
.fields { display: grid; grid-template-columns: minmax(0, 11rem) minmax(0, 1fr); gap: .1rem 1rem; }
.fields { margin: .3rem 0; font-size: .94rem; }
.fields dt { color: var(--soft); overflow-wrap: anywhere; }
.fields dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
@media (min-width: 48rem), print {
  .trees { columns: 2; column-gap: 3rem; margin-bottom: 1rem; }
  .trees .fields { grid-template-columns: minmax(0, 9.5rem) minmax(0, 1fr); }
  .trees > details { break-inside: avoid; margin-top: 0; padding-bottom: .8rem; }
}
footer { margin-top: 4rem; color: var(--soft); font-size: .88rem; }

@media (min-width: 72rem) {
  .frame { display: grid; grid-template-columns: 12rem minmax(0, 1fr); column-gap: 4rem; }
  header, main { grid-column: 2; }
  nav { grid-column: 1; grid-row: 1 / span 2; position: sticky; top: 2.5rem; align-self: start; }
  nav ul { flex-direction: column; margin-top: .3rem; }
}
@media (max-width: 40rem) {
  .frame { padding-top: 1.5rem; }
  h1 { font-size: 1.5rem; }
  .chart { font-size: 20px; }
  .chart polyline { stroke-width: 3; } .chart circle { r: 4px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 1rem 1.2rem; }
  .cards { grid-template-columns: 1fr 1fr; gap: 1.1rem .8rem; }
  .cards.pairs, .cards.wide { grid-template-columns: 1fr; }
  th, td { padding-right: .9rem; }
  th:first-child, td:first-child { min-width: 7rem; }
  .fields { grid-template-columns: minmax(0, 9rem) minmax(0, 1fr); }
}
@page { margin: 16mm; }
@media print {
  body { font-size: 10.5pt; background: none; }
  .frame { display: block; max-width: none; padding: 0; }
  main { max-width: none; }
  nav { display: none; }
  h2 { margin-top: 2rem; }
  h2, h3 { break-after: avoid; }
  .cards figure, .chart, tr, .tiles div { break-inside: avoid; }
  .scroll { overflow: visible; background: none; }
  .scroll.large svg { min-width: 0; }
  .cards { grid-template-columns: repeat(4, 1fr); }
  .cards.wide { grid-template-columns: repeat(4, 1fr); }
  .cards.pairs { grid-template-columns: repeat(3, 1fr); }
  td.bar span { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  details::details-content { content-visibility: visible; block-size: auto; opacity: 1; }
}
"""
