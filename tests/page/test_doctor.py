"""The Doctor's report as a table, with a button for each file that a goal needs."""

import pytest
from page.driver import PATIENCE, Driver
from page.server import FILES

pytestmark = pytest.mark.page
ROOT = ".image-prompt-doctor"
BUTTONS = f"{ROOT} button"
DOWNLOADS = "ImagePrompt.Downloads"


def examine(driver: Driver) -> None:
    """The report on the goal 'plus', of the base folder's empty files."""
    driver.add("ImagePromptDoctor", 300)
    driver.set("goal", "plus")
    driver.queue()
    driver.page.locator(f"{ROOT} .file").first.wait_for(timeout=PATIENCE)


def test_the_report_is_a_table_and_what_is_broken_stands_below(driver):
    examine(driver)
    heads = driver.page.locator(f"{ROOT} th").all_inner_texts()
    assert heads[1:] == ["file", "what it is", "encoder it needs", "state"]
    shown = driver.page.locator(ROOT).inner_text()
    assert all(name in shown for name in (*FILES["ipadapter"], *FILES["clip_vision"]))
    assert {"Broken", "Goals"} <= {*driver.page.locator(f"{ROOT} h4").all_inner_texts()}


def test_a_file_that_is_not_the_published_one_is_refused_beside_its_button(driver):
    examine(driver)
    line = driver.page.locator(f"{ROOT} .file", has_text="ip-adapter-plus_sd15.safetensors").first
    line.locator("button").click()
    refused = line.locator(".bad", has_text="ip-adapter-plus_sd15.safetensors")
    refused.wait_for(timeout=PATIENCE)
    assert line.locator("button").inner_text() == "Try again"
    assert line.locator("a").get_attribute("href").startswith("https://")


def test_where_downloads_are_off_there_is_no_button(driver):
    examine(driver)
    assert driver.page.locator(BUTTONS).count() > 1
    driver.clear()
    driver.set_setting(DOWNLOADS, False)
    try:
        examine(driver)
        assert driver.page.locator(BUTTONS).count() == 0
    finally:
        driver.set_setting(DOWNLOADS, True)
