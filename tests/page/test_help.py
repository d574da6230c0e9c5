"""Help pages as the page shows them: in its language where there is one, in English else, each with its picture."""

import json

import pytest
from bootstrap import ROOT

pytestmark = pytest.mark.page
LANGUAGES = {
    "en": "en",
    "zh": "zh",
    "ja": "ja",
    "fr": "en",
}  # of the page, and of the help that it then shows
HELP = ".node-help-content"


@pytest.fixture(params=LANGUAGES)
def language(request, driver):
    def speak(name):
        driver.page.evaluate("(name) => app.extensionManager.setting.set('Comfy.Locale', name)", name)
        driver.page.wait_for_timeout(1500)  # its texts are being loaded

    speak(request.param)
    yield request.param
    speak("en")


def title(node_id, language):
    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    return texts[node_id]["display_name"]


def test_help_comes_in_the_pages_language_with_its_picture(driver, language):
    driver.add("ImagePromptSave", 200, 300)
    driver.page.evaluate("() => { app.canvas.deselectAll?.(); app.canvas.selectNode(graphNodes()[0]); }")
    driver.settle()
    driver.page.locator('[data-testid="info-button"]').first.click()
    shown = driver.page.locator(HELP).first
    shown.locator("h1", has_text=title("ImagePromptSave", LANGUAGES[language])).wait_for(timeout=10_000)
    picture = shown.locator("img").first
    picture.scroll_into_view_if_needed()
    driver.page.wait_for_timeout(500)
    assert picture.evaluate("(img) => img.complete && img.naturalWidth") > 200
