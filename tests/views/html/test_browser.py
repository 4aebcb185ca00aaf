"""The page in a browser: it opens, zooms, tells what the pointer is at, and prints."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from offsim.api import Comparison, Result, compare, simulate
from offsim.results.units import format_bytes, format_memory, format_time
from offsim.views.style import KINDS
from tests.views.html.browser import browser, printed

EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\u2028&amp;"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, dos: Result, too_large: Result) -> dict[str, str]:
    """URLs of pages by what they show."""
    folder = tmp_path_factory.mktemp("pages")
    evil = simulate(dos.scenario.model_copy(update={"name": EVIL}))
    both = compare("dos_20b_4xh100", ["zero3_offload", "deep_optimizer_states"])
    shown: dict[str, Result | Comparison] = {"one": dos, "evil": evil, "both": both, "too large": too_large}
    for name, what in shown.items():
        what.to_html(folder / f"{name}.html")
    return {name: (folder / f"{name}.html").as_uri() for name in shown}


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def one(chrome: Chrome, pages: dict[str, str]) -> Chrome:
    chrome.get(pages["one"])
    return chrome


def canvas(chrome: Chrome, place: str = "timeline-0") -> WebElement:
    found = chrome.find_element(By.CSS_SELECTOR, f"#{place} canvas")
    chrome.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
    return found


def view(chrome: Chrome) -> tuple[float, float]:
    return tuple(chrome.execute_script("return [offsim.view.from, offsim.view.to]"))


def seen(chrome: Chrome) -> float:
    """The share of all time that is seen."""
    return chrome.execute_script("return offsim.view.span / (offsim.view.high - offsim.view.low)")


def activity(chrome: Chrome, name: str, stream: str) -> tuple[int, int]:
    """Zoom to an activity, and where its middle is from the middle of the canvas."""
    return tuple(
        chrome.execute_script(
            """
            const plot = offsim.plots[0], data = plot.data;
            const row = data.streams.indexOf(arguments[1]);
            const is = (k) => data.names[data.name[k]] === arguments[0] && data.row[k] === row;
            const i = [...Array(data.count).keys()].find(is);
            const took = data.end[i] - data.start[i];
            offsim.view.set(data.start[i] - 3 * took, data.end[i] + 3 * took);
            const x = plot.x((data.start[i] + data.end[i]) / 2);
            return [x - plot.width / 2, plot.tops[row] + 7 - plot.height / 2].map(Math.round);
            """,
            name,
            stream,
        )
    )


def tip(chrome: Chrome) -> str:
    WebDriverWait(chrome, 5).until(lambda c: c.find_element(By.ID, "tip").is_displayed())
    return chrome.find_element(By.ID, "tip").text


@pytest.mark.parametrize("name", ["one", "evil", "both", "too large"])
def test_it_opens_without_complaints_and_loads_nothing(chrome: Chrome, pages: dict[str, str], name: str) -> None:
    chrome.get_log("browser")
    chrome.get(pages[name])
    assert chrome.get_log("browser") == []
    assert chrome.execute_script("return performance.getEntriesByType('resource')") == []
    assert chrome.execute_script("return window.hacked") is None
    assert chrome.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    # Each plot has been painted: many colours, not an empty sheet.
    colours = chrome.execute_script(
        """
        return offsim.plots.map((plot) => {
          const {width, height} = plot.base;
          const image = plot.base.getContext("2d").getImageData(0, 0, width, height);
          return new Set(new Uint32Array(image.data.buffer)).size;
        });
        """
    )
    assert len(colours) == {"one": 4, "evil": 4, "both": 8, "too large": 2}[name]
    assert min(colours) > 10
    if name == "evil":
        assert chrome.find_element(By.CLASS_NAME, "maker").get_property("textContent").endswith(EVIL)


def test_quantities_are_written_as_everywhere_in_offsim(one: Chrome) -> None:
    values = [0, 1, 9.994, 9.996, 99.94, 99.96, 999.4, 999.6, 1023.4, 1024, 12_345, 1e6, 1.25e9, 55.2e9, 3e12, 7e17]
    for value in values:
        written = one.execute_script(
            "const f = offsim.format; return [f.time(arguments[0]), f.bytes(arguments[0]), f.memory(arguments[0])]",
            value,
        )
        assert written == [format_time(value / 1e9), format_bytes(value), format_memory(value)]


def test_buttons_zoom_move_and_reset(one: Chrome) -> None:
    def press(label: str) -> None:
        one.find_element(By.CSS_SELECTOR, f"button[aria-label='{label}']").click()

    assert seen(one) == 1
    press("Zoom in")
    press("Zoom in")
    assert seen(one) == pytest.approx(0.25)
    start, _ = view(one)
    press("Later")
    assert view(one)[0] > start
    press("Earlier")
    assert view(one)[0] == pytest.approx(start)
    press("Zoom out")
    assert seen(one) == pytest.approx(0.5)
    one.find_element(By.XPATH, "//button[text()='Reset']").click()
    assert seen(one) == 1


def wheel(chrome: Chrome, at: WebElement, pixels: int) -> None:
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    ActionChains(chrome).scroll_from_origin(ScrollOrigin.from_element(at, 100, 0), 0, pixels).perform()


def test_the_wheel_zooms_where_the_pointer_is_once_the_plot_was_clicked(one: Chrome) -> None:
    plot = canvas(one)
    wheel(one, plot, -1)
    assert seen(one) == 1, "it scrolls the page until the plot was clicked"
    ActionChains(one).move_to_element_with_offset(plot, 100, 0).click().perform()
    instant = "const p = offsim.plots[0]; return p.time(p.width / 2 + 100)"
    before = one.execute_script(instant)
    wheel(one, plot, -400)
    WebDriverWait(one, 5).until(lambda c: seen(c) < 0.6)
    assert one.execute_script(instant) == pytest.approx(before, rel=1e-3)
    wheel(one, plot, 2000)
    WebDriverWait(one, 5).until(lambda c: seen(c) == 1)


def test_dragging_zooms_into_what_was_dragged_over_and_two_clicks_reset(one: Chrome) -> None:
    plot = canvas(one)
    edges = "const p = offsim.plots[0]; return [p.time(p.width / 2 - 100), p.time(p.width / 2 + 150)]"
    start, end = one.execute_script(edges)
    chain = ActionChains(one).move_to_element_with_offset(plot, -100, 0).click_and_hold()
    chain.move_by_offset(200, 0).move_by_offset(50, 0).release().perform()
    pixel = (end - start) / 250
    assert view(one) == pytest.approx((start, end), abs=pixel)
    assert memory_axis(one) == pytest.approx(view(one))
    ActionChains(one).double_click(plot).perform()
    assert seen(one) == 1


def memory_axis(chrome: Chrome) -> tuple[float, float]:
    """The instants at the edges of the last plot, of memory: all plots zoom together."""
    script = "const p = offsim.plots.at(-1); return [p.time(p.left), p.time(p.left + p.inner)]"
    return tuple(chrome.execute_script(script))


def test_a_click_on_a_phase_shows_it_alone(one: Chrome, dos: Result) -> None:
    plot = canvas(one)
    update = dos.phases.iloc[-1]
    middle = 1e9 * (update["start_s"] + update["end_s"]) / 2
    place = f"const p = offsim.plots[0]; return p.x({middle}) - p.width / 2"
    height = plot.size["height"]
    ActionChains(one).move_to_element_with_offset(
        plot, round(one.execute_script(place)), 10 - height // 2
    ).click().perform()
    assert view(one) == pytest.approx((1e9 * update["start_s"], 1e9 * update["end_s"]), rel=1e-6)


@pytest.mark.parametrize("name", ["CPU Adam 4", "flush momentum", "layer 7 backward", "reduce-scatter gradients"])
def test_pointing_at_an_activity_tells_what_it_did_and_what_released_it(one: Chrome, dos: Result, name: str) -> None:
    timeline = dos.timeline
    row = timeline[timeline["name"] == name].iloc[0]
    plot = canvas(one)
    ActionChains(one).move_to_element_with_offset(plot, *activity(one, name, row["stream"])).perform()
    title, *lines = tip(one).splitlines()
    told = dict(zip(lines[::2], lines[1::2], strict=True))
    assert title == name
    assert told["stream"] == row["stream"]
    assert told["activity"] == KINDS[row["activity"]].label
    took = row["end_s"] - row["start_s"]
    assert told["took"] == format_time(took)
    if row["bytes"]:
        assert told["moved"] == f"{format_bytes(row['bytes'])} at {format_bytes(row['bytes'] / took)}/s"
    for key, column in (("sub-group", "subgroup"), ("layer", "layer")):
        assert told.get(key, "-1") == str(row[column])
    if took > 1.1 * row["alone_s"]:
        assert told["slowed by"] == row["limited_by"]
        assert told["alone"].startswith(format_time(row["alone_s"]))
    released_by = timeline.loc[row["waited_for"]]
    assert told["released by"] == f"{released_by['name']} ({released_by['stream']})"
    # The bar under the pointer has the colour of its kind.
    pixel = one.execute_script(
        """
        const plot = offsim.plots[0], [dx, dy] = arguments, ratio = plot.base.width / plot.width;
        const at = [(plot.width / 2 + dx) * ratio, (plot.height / 2 + dy - 5) * ratio].map(Math.round);
        return [...plot.base.getContext("2d").getImageData(...at, 1, 1).data];
        """,
        *activity(one, name, row["stream"]),
    )
    look = next(kind for kind in one.execute_script("return offsim.page.kinds") if kind["id"] == row["activity"])
    if not look["hatch"]:
        assert "#{:02X}{:02X}{:02X}".format(*pixel[:3]) in look["colours"]


def test_pointing_at_memory_tells_who_holds_it(one: Chrome, dos: Result) -> None:
    plot = canvas(one, "memory-0-0")
    place = "const p = offsim.plots[2]; return Math.round(p.x(p.data.peak_ns) - p.width / 2)"
    ActionChains(one).move_to_element_with_offset(plot, one.execute_script(place), 0).perform()
    title, *lines = tip(one).splitlines()
    told = dict(zip(lines[::2], lines[1::2], strict=True))
    assert title == "GPU 0 memory"
    peak = dos.peaks[0]
    assert told["taken"].startswith(f"{format_memory(peak.bytes)}, ")
    assert {name: told[name] for name in peak.occupants} == {n: format_memory(b) for n, b in peak.occupants.items()}


def test_pointing_at_a_link_tells_how_busy_it_is(one: Chrome, dos: Result) -> None:
    plot = canvas(one, "bandwidth-0")
    phase = dos.phases.iloc[-1]
    script = "offsim.view.set(arguments[0], arguments[1]); return [offsim.plots[1].data.length, offsim.plots[1].height]"
    links, height = one.execute_script(script, 1e9 * phase["start_s"], 1e9 * phase["end_s"])
    ActionChains(one).move_to_element_with_offset(plot, 0, round(height / links / 2 - height / 2)).perform()
    title, *lines = tip(one).splitlines()
    assert title == "H2D"
    told = dict(zip(lines[::2], lines[1::2], strict=True))
    used = dos.utilization.loc["H2D"]
    share = f"{100 * used[phase['phase']]:.1f} %"
    assert told["mean of what is shown"] == f"{format_bytes(used[phase['phase']] * used['capacity'])}/s, {share}"


def test_a_finger_shows_a_tip_until_it_touches_elsewhere(one: Chrome) -> None:
    plot = canvas(one)
    x, y = one.execute_script(
        "const b = arguments[0].getBoundingClientRect(), p = offsim.plots[0];"
        "return [b.left + p.x((p.data.start[0] + p.data.end[0]) / 2), b.top + p.tops[0] + 6]",
        plot,
    )

    def tap(x: float, y: float) -> None:
        for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
            one.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    one.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        tap(x, y)
        assert "host thread" in tip(one)
        tap(20, 300)
        WebDriverWait(one, 5).until(lambda c: not c.find_element(By.ID, "tip").is_displayed())
    finally:
        one.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_no_tip_has_names_or_marks_of_the_program(one: Chrome) -> None:
    """Every activity's tip, the path's steps too: no identifiers, no numbers that stand for "none"."""
    texts = one.execute_script(
        """
        const told = (plot, found) => JSON.stringify(plot.describe(found));
        const [timeline, links, memory] = offsim.plots;
        return [
          ...timeline.data.start.map((_, i) => i).reduce((all, i) => [...all, told(timeline, { index: i })], []),
          ...links.data.map((link) => told(links, { link, time: 1e9 })),
          ...[...memory.data.time].map((time, instant) => told(memory, { instant, time })),
        ];
        """
    )
    assert len(texts) > 1000
    for text in set(texts):
        assert not re.search(r"\w_\w|undefined|NaN|Infinity|null|None|True|False|: ?-\d|\"-\d+\"", text), text


def rows(chrome: Chrome, place: int = 0) -> dict[str, list[str]]:
    """The totals of what is shown, by kind of work."""
    script = (
        "return [...document.querySelectorAll(arguments[0])].map((row) => [...row.cells].map((c) => c.textContent))"
    )
    WebDriverWait(chrome, 5).until(lambda c: c.find_elements(By.CSS_SELECTOR, f"#totals-{place} tbody tr"))
    return {name: cells for name, *cells in chrome.execute_script(script, f"#totals-{place} tbody tr")}


def test_totals_are_those_of_the_stretch_that_is_shown(one: Chrome, dos: Result) -> None:
    update = dos.phases.iloc[-1]
    frame = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
    one.execute_script(f"offsim.view.set({1e9 * update['start_s']}, {1e9 * update['end_s']})")
    one.execute_async_script(frame)
    inside = dos.timeline.query("activity in ['d2h', 'cpu_adam']").copy()
    seconds = inside["end_s"].clip(upper=update["end_s"]) - inside["start_s"].clip(lower=update["start_s"])
    inside = inside.assign(seconds=seconds, moved=inside["bytes"] * seconds / (inside["end_s"] - inside["start_s"]))
    found = inside[inside["seconds"] > 0].groupby("activity")
    shown = rows(one)
    for kind, label in (("d2h", "copy D2H"), ("cpu_adam", "CPU Adam")):
        mine = found.get_group(kind)
        time, _, count, moved = shown[label]
        assert time == format_time(mine["seconds"].sum())
        assert count == str(len(mine))
        assert moved == format_bytes(mine["moved"].sum())
    # The critical path is as long as the stretch.
    path = sum(one.execute_script("const p = offsim.plots[0]; return [...p.data.on_path]"))
    assert path <= 1e9 * dos.iteration_s * (1 + 1e-6)


def test_search_counts_what_it_finds_and_goes_there(one: Chrome, dos: Result) -> None:
    search = one.find_element(By.ID, "search")
    search.send_keys("CPU ADAM")
    named = dos.timeline["name"].str.contains("CPU Adam")
    assert one.find_element(By.ID, "found").text.startswith(f"{named.sum()} of ")
    WebDriverWait(one, 5).until(lambda c: list(rows(c)) == ["CPU Adam"])
    search.send_keys(Keys.ENTER)
    assert tip(one).splitlines()[0] == "CPU Adam 0"
    search.send_keys(Keys.ENTER)
    assert tip(one).splitlines()[0] == "CPU Adam 2"
    search.clear()
    search.send_keys("no such name")
    assert one.find_element(By.ID, "found").text.startswith("0 of ")


def pixels(chrome: Chrome, colour: str) -> int:
    """How many pixels of the timeline have this colour."""
    return chrome.execute_script(
        """
        const base = offsim.plots[0].base, {width, height} = base;
        const {data} = base.getContext("2d").getImageData(0, 0, width, height);
        const wanted = [1, 3, 5].map((i) => parseInt(arguments[0].slice(i, i + 2), 16));
        let count = 0;
        for (let i = 0; i < data.length; i += 4) count += wanted.every((value, k) => data[i + k] === value);
        return count;
        """,
        colour,
    )


def test_the_critical_path_is_drawn_until_it_is_switched_off(one: Chrome) -> None:
    assert pixels(one, "#d6006c") > 200
    one.find_element(By.ID, "path").click()
    WebDriverWait(one, 5).until(lambda c: pixels(c, "#d6006c") == 0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["one", "both", "too large"])
def test_nothing_is_cut_off_on_narrow_and_dark_screens(
    chrome: Chrome, pages: dict[str, str], name: str, width: int, scheme: str
) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        chrome.get(pages[name])
        assert chrome.execute_script("return document.documentElement.scrollWidth") <= width
        ground = chrome.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 27)"}[scheme]
        if name == "one":
            launch = {"light": "#141414", "dark": "#ebebeb"}[scheme]
            assert pixels(chrome, launch) > 30
            top = chrome.execute_script("return offsim.plots[0].base.getBoundingClientRect().top")
            assert top < 844
    finally:
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_keyboard_zooms_moves_and_goes_from_activity_to_activity(one: Chrome) -> None:
    # By Tab alone from the button before it.
    one.find_element(By.XPATH, "//button[text()='Reset']").send_keys(Keys.TAB)
    focused = one.switch_to.active_element
    assert focused.get_attribute("aria-label").startswith("Timeline of dos_20b_4xh100")
    focused.send_keys("++")
    assert seen(one) == pytest.approx(0.25)
    start, _ = view(one)
    focused.send_keys(Keys.ARROW_RIGHT)
    assert view(one)[0] > start
    focused.send_keys("n")
    first = tip(one)
    assert "host thread" in first
    focused.send_keys(Keys.ARROW_DOWN)
    assert "stream\nbackground thread" in tip(one)
    focused.send_keys("n")
    assert tip(one) != first
    assert "stream: background thread" in one.find_element(By.ID, "said").get_property("textContent")
    focused.send_keys(Keys.ESCAPE)
    assert not one.find_element(By.ID, "tip").is_displayed()
    focused.send_keys("0")
    assert seen(one) == 1


def test_paper_has_everything_open_and_all_of_the_time(one: Chrome) -> None:
    one.execute_script("offsim.view.zoom(0.1)")
    closed = "return document.querySelectorAll('details:not([open])').length"
    assert one.execute_script(closed) > 0
    one.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert seen(one) == 1
    assert one.execute_script(closed) == 0
    one.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert seen(one) == pytest.approx(0.1)
    assert one.execute_script(closed) > 0


@pytest.mark.parametrize("name", ["one", "both", "too large"])
def test_nothing_is_cut_off_on_paper(chrome: Chrome, pages: dict[str, str], name: str) -> None:
    chrome.get(pages[name])
    # A4 within the page's margins.
    size = {"width": 688, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        chrome.execute_script("window.dispatchEvent(new Event('beforeprint'))")
        beyond = """
            return [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > 689)
              .map((e) => e.outerHTML.slice(0, 80));
        """
        assert chrome.execute_script(beyond) == []
    finally:
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_prints(one: Chrome, dos: Result) -> None:
    sheets = printed(one)
    text = unicodedata.normalize("NFKC", " ".join(" ".join(sheets).split()))  # a font may join letters
    assert len(sheets) > 1
    assert all(sheet.strip() for sheet in sheets)
    for said in (
        "dos_20b_4xh100",
        "What limits each phase",
        "Who held how much memory",
        format_time(dos.iteration_s),
    ):
        assert said in text
    for origin in dos.run.profile.provenance.values():  # the collapsible table, to its last value
        assert "".join(origin.note.split()) in text.replace(" ", "")
    assert "Drag over a stretch" not in text
