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
