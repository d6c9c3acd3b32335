"""A headless Chromium, as Debian's packages chromium and chromium-driver install it."""

import os
import shutil
from contextlib import contextmanager

import pytest


@contextmanager
def chromium():
    """A browser that reports what scripts log; where there is none, tests are skipped unless it was promised."""
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if not all(programs):
        if os.environ.get("CSRM_NEED_CHROMIUM"):
            pytest.fail("chromium and chromedriver are not installed")
        pytest.skip("needs chromium and chromedriver (Debian packages chromium, chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    try:
        yield driver
    finally:
        driver.quit()


def set_scheme(driver, scheme):
    """Light or dark."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def set_size(driver, width, height, *, mobile):
    """Of the screen, in CSS pixels."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
