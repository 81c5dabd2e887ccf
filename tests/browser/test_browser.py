"""The fixtures themselves: what goes wrong on a page is seen, and nothing is reached but this machine."""


def test_what_goes_wrong_on_a_page_is_seen(new_page):
    page = new_page()
    page.evaluate("console.error('oh')")
    page.evaluate("setTimeout(() => { throw new Error('dear') })")
    reached = page.evaluate("fetch('http://example.com').then(() => true, () => false)")
    page.wait_for_timeout(100)
    complaints = "\n".join(page.complaints)
    page.complaints.clear()
    assert not reached
    for part in ("console: oh", "uncaught: ", "dear", "asked for http://example.com/"):
        assert part in complaints


def test_a_quiet_page_is_quiet(new_page):
    page = new_page(width=500, height=300)
    page.goto("data:text/html,<p>quiet</p>")
    page.evaluate("console.log('said aloud')")
    assert page.inner_text("p") == "quiet" and page.complaints == []
    assert page.evaluate("[innerWidth, innerHeight]") == [500, 300]
