"""How the status page looks and keeps itself new; and what a browser may do with it: nothing that is not in it."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

STYLE = """
:root{color-scheme:light dark;--ground:#fafaf7;--raised:#ffffff;--ink:#1b2320;--quiet:#55615b;--line:#dde3df;
--accent:#1a6a55;--soft:#d9e9e3;--band:#e6e9e4;--bad:#a4371a;--badsoft:#f8e6df}
@media(prefers-color-scheme:dark){:root{--ground:#111614;--raised:#171e1b;--ink:#e7edea;--quiet:#9fb1a8;--line:#2c3733;
--accent:#73c8af;--soft:#1f3f37;--band:#26302c;--bad:#ff9f83;--badsoft:#3a231b}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
header,main,footer{max-width:70rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.25rem}
h1{margin:0;font-size:.9rem;font-weight:600;color:var(--accent);letter-spacing:.02em}
#headline{margin:.15rem 0 0;font-size:clamp(1.35rem,1rem + 1.8vw,2rem);line-height:1.2;font-weight:600;
letter-spacing:-.015em;text-wrap:balance}
#headline.bad{color:var(--bad)}
h2{margin:0;font-size:1.35rem;line-height:1.25;letter-spacing:-.01em}
h3{margin:0;font-size:1rem;line-height:1.35}
p{margin:.25rem 0}
a{color:var(--accent);text-underline-offset:.18em;text-decoration-thickness:.06em}
a:hover{text-decoration-thickness:.12em}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px;border-radius:2px}
.skip{position:absolute;left:-99rem}
.skip:focus{left:1rem;top:.5rem;background:var(--raised);padding:.5rem .75rem}
nav ul{display:flex;flex-wrap:wrap;gap:.15rem 1.4rem;margin:.9rem 0 0;padding:0;list-style:none}
nav li,.quiet{color:var(--quiet)}
.small{font-size:.875rem}
section{margin:2.25rem 0 0;padding:1.5rem 0 0;border-top:1px solid var(--line)}
.title{display:flex;flex-wrap:wrap;align-items:baseline;gap:.1rem .75rem}
.state{font-size:.875rem;font-weight:600;padding:.1rem .6rem;border-radius:1rem;background:var(--band);
color:var(--quiet)}
.state.ok{background:var(--soft);color:var(--accent)}
.state.bad{background:var(--badsoft);color:var(--bad)}
dl.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(12.5rem,45%),1fr));
gap:1rem 1.75rem;margin:1.1rem 0 0}
dl.facts dt{font-size:.875rem;color:var(--quiet)}
dl.facts dd{margin:0}
dl.facts .big{display:block;font-size:1.5rem;line-height:1.25;font-weight:600;letter-spacing:-.015em}
.pictures{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:2rem 2.5rem;margin:1.75rem 0 0}
@media(max-width:50rem){.pictures{grid-template-columns:minmax(0,1fr)}}
figure{margin:0;min-width:0}
@media(min-width:50rem){figcaption:has(+svg){min-height:4.6rem}}
figcaption p{margin:.1rem 0 .35rem;color:var(--quiet);font-size:.9375rem}
figcaption p.bad{color:var(--bad)}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font-size:10.5px;fill:var(--quiet)}
svg text.moved,svg text.no{fill:var(--bad)}
@media(max-width:50rem) and (min-width:30rem){svg text{font-size:9px}}
@media(max-width:30rem){svg text{font-size:13px}}
.grid{stroke:var(--line);stroke-width:1}
.zero{stroke:var(--quiet);stroke-width:1}
.promise{fill:var(--band)}
.promised{stroke:var(--quiet);stroke-width:1.3;stroke-dasharray:5 3}
.line{fill:none;stroke:var(--accent);stroke-width:1.6;stroke-linejoin:round}
.line.thin{stroke-width:1;stroke:var(--quiet);opacity:.55}
.line.moved{stroke:var(--bad);stroke-width:1.8}
.line.guess{stroke-width:1;stroke-dasharray:2 3}
.spread{stroke:var(--accent);stroke-width:1.4;opacity:.55}
.dot{fill:var(--accent);stroke:var(--ground);stroke-width:.8}
.dot.hollow{fill:var(--ground);stroke:var(--accent);stroke-width:1.3}
.dot.no{fill:var(--bad)}
.dot.none{fill:var(--ground);stroke:var(--quiet);stroke-width:1.2}
.spread.no{stroke:var(--bad)}
.limit{stroke:var(--ink);stroke-width:1.4}
.live{stroke:var(--ink);stroke-width:1;stroke-dasharray:1 3}
.bar{fill:var(--accent);fill-opacity:.8}
.bar.back{fill:var(--band);fill-opacity:1}
.bar.no{fill:var(--badsoft);stroke:var(--bad);stroke-width:1.2}
.keys{display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;margin:.35rem 0 0;padding:0;list-style:none;font-size:.8125rem;
color:var(--quiet)}
.keys li{display:flex;align-items:center;gap:.4rem}
.keys svg{width:1.5rem;flex:none}
ul.plain{margin:.5rem 0 0;padding:0;list-style:none}
ul.plain>li{padding:.5rem 0;border-top:1px solid var(--line)}
ul.plain>li:first-child{border-top:0}
ul.words{margin:.35rem 0 0;padding-left:1.1rem}
ul.words li{margin:.15rem 0}
.no-mark{color:var(--bad);font-weight:600}
.yes-mark{color:var(--accent);font-weight:600}
.alarm{margin:1rem 0 0;padding:.8rem 1rem;background:var(--badsoft);border-left:4px solid var(--bad);border-radius:2px}
.alarm p,.broken p{margin:.15rem 0 0}
.broken{margin:1rem 0 0;padding:.8rem 1rem;border:1px dashed var(--bad);border-radius:4px}
.empty{padding:1.4rem 1.25rem;border:1px dashed var(--line);border-radius:6px;color:var(--quiet)}
.empty code,.broken code,code{font:.875em ui-monospace,SFMono-Regular,Menlo,monospace}
.rows{display:grid;grid-template-columns:minmax(14rem,1fr) minmax(12rem,.9fr) minmax(0,3fr);gap:.15rem 1.25rem}
@media(max-width:50rem){.rows{grid-template-columns:minmax(0,1fr)}}
details{margin:.6rem 0 0}
summary{cursor:pointer;color:var(--accent);font-size:.9375rem;padding:.2rem 0}
.scroll{overflow-x:auto;margin:.4rem 0 0}
table{border-collapse:collapse;font-size:.875rem;min-width:100%;overflow-wrap:normal}
caption{text-align:left;color:var(--quiet);padding:0 0 .35rem}
th,td{text-align:left;vertical-align:top;padding:.3rem .9rem .3rem 0;border-top:1px solid var(--line)}
thead th{color:var(--quiet);font-weight:600;white-space:nowrap}
td.n{white-space:nowrap}
tbody th{font-weight:600}
footer{padding-top:1.25rem;padding-bottom:3rem;margin-top:2.5rem;color:var(--quiet);font-size:.875rem}
button{font:inherit;color:var(--accent);background:none;border:1px solid var(--line);border-radius:4px;
padding:.15rem .6rem;cursor:pointer}
[hidden]{display:none!important}
@media print{nav,button,.skip{display:none}section{break-inside:avoid}}
"""

SCRIPT = """
(() => {
  const EVERY = 10000, OLD = 180000
  const $ = (id, of = document) => of.getElementById(id)
  const hold = $('hold'), old = $('old')
  let held = false
  hold.hidden = false
  hold.onclick = () => {
    held = !held
    hold.setAttribute('aria-pressed', held)
  }
  const opened = of => [...of.querySelectorAll('details[open]')].map(one => one.id)
  const take = page => {
    const now = $('main'), next = $('main', page)
    for (const id of ['headline', 'written'])
      if ($(id).outerHTML !== $(id, page).outerHTML) {
        $(id).className = $(id, page).className
        $(id).innerHTML = $(id, page).innerHTML
        if (id === 'written') $(id).dateTime = $(id, page).dateTime
      }
    document.title = page.title
    if (now.dataset.state === next.dataset.state) return
    const open = opened(now), at = document.activeElement && document.activeElement.id
    now.innerHTML = next.innerHTML
    now.dataset.state = next.dataset.state
    for (const id of open) if ($(id)) $(id).open = true
    if (at && $(at)) $(at).focus({preventScroll: true})
  }
  const look = async () => {
    if (!held && !document.hidden && location.protocol !== 'file:')
      try {
        const answer = await fetch(location.pathname, {cache: 'no-store', headers: {accept: 'text/html'}})
        if (answer.ok) take(new DOMParser().parseFromString(await answer.text(), 'text/html'))
      } catch {}
    old.hidden = Date.now() - Date.parse($('written').dateTime) < OLD
  }
  setInterval(look, EVERY)
  look()
})()
"""


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


IN_PAGE = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(STYLE)}",
        f"script-src {_hash(SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
"""What the page says of itself, so that it holds for the file too."""

POLICY = f"{IN_PAGE}; frame-ancestors 'none'"
"""The content security policy that it is served with: this style, this script, itself, and nothing else."""

REPORTS = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; font-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For the pages below var/reports, which other tools make: what is in them, and nothing from elsewhere."""
