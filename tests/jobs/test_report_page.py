"""The page of a report in a real browser: it renders, filters and sorts, and obeys nothing that a conversation says."""

import contextlib
import json

import pytest
from browser import chromium, set_scheme, set_size
from click.testing import CliRunner

from jobs.cli import cli

PLANTS = [
    "<script>window.pwned = 1</script>",
    '<img src=x onerror="window.pwned = 1">',
    '<svg onload="window.pwned = 1">',
    "</p></details></main><script>window.pwned = 1</script>",
    "\"><script>window.pwned = 1</script><a title='",
    "{{ 7 * 7 }} {% raw %} <style>body{display:none}</style>",
    '<iframe srcdoc="<script>parent.pwned = 1</script>"></iframe>',
    "</script><script>window.pwned = 1</script>",
    "javascript:window.pwned=1",
    "\ud800 half a character, \u202e turned, \x00\x1b[31m controls",
]


def write_rows(path, num_rows, violating):
    """Every value that reaches the page is planted: ids, texts, partitions, errors."""
    lines = [
        {
            "id": f"{row} {PLANTS[row % len(PLANTS)]}",
            "messages": [
                {
                    "role": "user",
                    "content": f"{'kill ' * 8 if row < violating else 'hello'} {PLANTS[row % len(PLANTS)]}",
                }
            ],
            "model": PLANTS[row % 3],
        }
        for row in range(num_rows)
    ]
    lines.append({"messages": [{"role": PLANTS[0], "content": 5}], "model": PLANTS[1], "id": PLANTS[2]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def policies_with_plants(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    for name, text in (
        ("game", "do not kill"),
        ("bank", "do not talk of the weather"),
        ("third", "never ask for a pin"),
    ):
        policy = {
            "id": name,
            "title": f"Policy {name} {PLANTS[0]}",
            "context": PLANTS[3],
            "threshold": 0.5 if name == "third" else 0.16,  # rows violate the third on either night
            "clauses": [{"category": f"c {PLANTS[4]}", "guideline": f"{text} {PLANTS[1]}"}],
        }
        (folder / f"{name}.yaml").write_text(json.dumps(policy))
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory, model_folder, policies_with_plants):
    """The page of a night with a baseline."""
    from in_process import write_in_process

    from jobs import pipeline

    root = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "cluster", contextlib.nullcontext)
        patch.setattr(pipeline, "score_shards", write_in_process)
        for name, violating in (("first", 10), ("second", 120)):
            write_rows(root / f"{name}.jsonl", 150, violating)
            given = [root / f"{name}.jsonl", "-c", policies_with_plants, "-m", model_folder, "-o", root / name]
            more = ["--explain", "--keep-columns", "model", "--id-column", "id", "--max-error-rate", "1"]
            result = CliRunner().invoke(cli, ["score", *map(str, given), *more])
            assert result.exit_code == 0, result.output
    given = [
        root / "second",
        "--baseline",
        root / "first",
        "--output",
        root / "page.html",
        "--by",
        "model",
        "--worst",
        "200",
    ]
    result = CliRunner().invoke(cli, ["report", *map(str, given), "--max-error-rate", "0", "--max-drift", "100"])
    assert result.exit_code == 3, result.output
    return root / "page.html"


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture
def opened(browser, page):
    set_size(browser, 1280, 1000, mobile=False)
    set_scheme(browser, "light")
    browser.get_log("browser")
    browser.get("about:blank")
    browser.get(page.as_uri())
    return browser


def shown(driver, selector):
    """Texts of the elements that are seen."""
    script = (
        "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).map(e => e.innerText)"
    )
    return driver.execute_script(script, selector)


def type_into(driver, selector, text):
    field = driver.find_element("css selector", selector)
    field.clear()
    field.send_keys(text or " ")


def configurations(driver):
    return [text.split()[0] for text in shown(driver, "main > section:nth-of-type(2) tbody tr th")]


def test_every_part_is_there_and_the_console_is_silent(opened):
    headings = shown(opened, "h2")
    assert headings == [
        "Configurations",
        "Violations by model",
        "Violated together",
        "Clauses violated most",
        "Without scores",
        "Worst records",
        "Texts of the configurations",
        "The run",
    ]
    assert opened.get_log("browser") == []
    assert shown(opened, ".failed b") == ["1"]
    assert "gate error rate" in shown(opened, ".gates .failed")[0]
    assert len(opened.find_elements("css selector", "svg.histogram rect")) == 3 * 20


def test_nothing_that_was_planted_runs_or_becomes_markup(opened):
    opened.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert opened.execute_script("return window.pwned === undefined")
    counts = {tag: len(opened.find_elements("css selector", tag)) for tag in ("script", "style", "img", "iframe")}
    assert counts == {"script": 1, "style": 1, "img": 0, "iframe": 0}
    assert not opened.execute_script(
        "return [...document.querySelectorAll('*')].some(e => [...e.attributes].some(a => a.name.startsWith('on')))"
    )
    texts = " ".join(shown(opened, "details.record .message p"))
    for plant in PLANTS[:-1]:
        assert " ".join(plant.split()) in " ".join(texts.split()), plant
    assert opened.get_log("browser") == []


def test_what_would_slip_through_the_escaping_is_not_run(opened):
    """The second lock: scripts, handlers, styles and requests are refused, whoever puts them there."""
    opened.execute_script(
        """
        const add = (tag, set) => document.body.append(Object.assign(document.createElement(tag), set));
        add("div", {innerHTML: '<img src="data:image/png;base64,AAAA" onerror="window.pwned = 1">'});
        add("script", {textContent: "window.pwned = 1"});
        add("style", {textContent: "body { display: none }"});
        add("img", {src: "https://example.org/x.png"});
        """
    )
    assert opened.execute_script("return window.pwned === undefined")
    assert opened.execute_script("return getComputedStyle(document.body).display") == "block"
    refused = [entry["message"] for entry in opened.get_log("browser")]
    assert sum("Content Security Policy" in message for message in refused) >= 4, refused


def test_filters(opened):
    assert sorted(configurations(opened)) == ["bank", "game", "third"]
    type_into(opened, "#configuration-filter", "gam")
    assert configurations(opened) == ["game"]
    assert shown(opened, "#filter-result") == ["1 of 3 configurations"]
    heads = shown(opened, "table.heat thead th[data-id]")
    assert {head.split()[0] for head in heads} == {"game"}
    assert {text.split()[0] for text in shown(opened, "main > section > details > summary")} == {"game"}
    type_into(opened, "#configuration-filter", "policy third")
    assert configurations(opened) == ["third"]
    opened.execute_script("document.querySelector('#configuration-filter').value = ''")
    type_into(opened, "#partition-filter", "onerror")
    assert shown(opened, "[data-partition] th") == [PLANTS[1]]
    assert len(configurations(opened)) == 3


def test_only_changed(opened):
    changed = opened.execute_script("return [...document.querySelectorAll('tr[data-changed]')].map(e => e.dataset.id)")
    assert 0 < len(changed) < 3, "the nights must differ in some configurations, not in all"
    opened.find_element("css selector", "#changed-filter").click()
    assert configurations(opened) == changed


def test_sorting_goes_by_numbers(opened):
    head = opened.find_elements("css selector", "main > section:nth-of-type(2) th button")[1]
    rows = "[...document.querySelectorAll('main > section:nth-of-type(2) tbody tr')]"
    rates = f"return {rows}.map(row => +row.cells[1].dataset.value)"
    head.click()
    first = opened.execute_script(rates)
    assert first == sorted(first, reverse=True)
    assert head.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    head.click()
    assert opened.execute_script(rates) == first[::-1]


def test_a_keyboard_reaches_everything(opened):
    """Tab goes through filters, buttons and texts; Enter opens a record."""
    from selenium.webdriver.common.keys import Keys

    reached = []
    for _ in range(60):
        opened.switch_to.active_element.send_keys(Keys.TAB)
        name = opened.execute_script("return document.activeElement.id || document.activeElement.tagName.toLowerCase()")
        reached.append(name)
        if name == "summary" and shown(opened, "details[open]") == []:
            opened.switch_to.active_element.send_keys(Keys.ENTER)
    assert {"configuration-filter", "partition-filter", "changed-filter", "button", "summary", "a"} <= set(reached)
    assert shown(opened, "details[open]")


def test_a_link_opens_the_text_it_names(opened):
    opened.find_element("css selector", "a[href='#text-bank']").click()
    assert opened.execute_script("return document.getElementById('text-bank').open")


def test_light_and_dark(opened):
    colours = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    light = opened.execute_script(colours)
    set_scheme(opened, "dark")
    dark = opened.execute_script(colours)
    for ink, paper in (light, dark):
        assert contrast(ink, paper) > 7
    assert brightness(light[1]) > 0.9 > 0.1 > brightness(dark[1])


def test_a_phone_shows_it_without_scrolling_sideways(opened):
    set_size(opened, 360, 740, mobile=True)
    opened.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert opened.execute_script("return [document.documentElement.scrollWidth, innerWidth]") == [360, 360]


def test_without_scripts_it_can_be_read(opened):
    opened.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened.refresh()
        assert "Worst records" in opened.find_element("css selector", "main").text
        assert not opened.find_element("css selector", "#filters").is_displayed()
    finally:
        opened.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_nothing_is_fetched(page):
    text = page.read_text()
    assert "default-src 'none'" in text
    for needle in ("http://", "https://", "@import", "url("):
        assert needle not in text


def brightness(colour):
    """Relative luminance (WCAG 2)."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first, second):
    """Contrast ratio (WCAG 2)."""
    low, high = sorted((brightness(first), brightness(second)))
    return (high + 0.05) / (low + 0.05)
