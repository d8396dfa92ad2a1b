"""Airflow's own pages in a real browser."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from decimal import Decimal
from urllib.parse import urlsplit

import pytest

from tests.support.deployment import AIRFLOW_3, RUN_SECONDS
from tests.support.monitored import KEY, Monitored

if not AIRFLOW_3:
    pytest.skip("tests the pages of Airflow 3", allow_module_level=True)

from playwright.sync_api import Locator, Page, expect

from tests.support.browser import open_page, picture


@pytest.fixture(scope="module")
def page(monitored: Monitored) -> Iterator[Page]:
    with open_page(monitored.airflow.url) as page:
        yield page


def field(form: Locator, name: str) -> Locator:
    return form.locator(f"[name={name}]")


def open_section(form: Locator, name: str) -> None:
    button = form.get_by_role("button", name=name, exact=True)
    if button.get_attribute("aria-expanded") != "true":
        button.click()


class TestConnectionForm:
    """In the order in which a user fills in the form."""

    def test_the_form_shows_only_fields_of_this_type(self, monitored: Monitored, page: Page) -> None:
        page.goto("/connections")
        page.get_by_role("button", name="Add Connection").click()
        form = page.get_by_role("dialog")
        field(form, "connection_id").fill("from_the_form")
        form.get_by_role("combobox").first.click()
        page.keyboard.type("aixplain")
        page.get_by_role("option", name="aiXplain").click()
        expect(form.get_by_text("API key", exact=True)).to_be_visible()
        expect(form.get_by_text("Backend URL", exact=True)).to_be_visible()
        expect(field(form, "host")).to_have_attribute("placeholder", "https://platform-api.aixplain.com")
        expect(field(form, "password")).to_have_attribute("type", "password")
        for hidden in ("login", "schema"):
            expect(field(form, hidden)).to_have_count(0)
        open_section(form, "Extra Fields")
        for name, default in [("timeout", "60"), ("max_answer_mib", "256"), ("verify", "true")]:
            expect(field(form, f"element_{name}")).to_have_value(default)
        expect(form.get_by_text("Time limit of a request, in seconds")).to_be_visible()
        expect(field(form, "element_proxy")).to_have_attribute("type", "password")
        picture(page, "connection-extra")

    def test_the_connection_is_saved(self, monitored: Monitored, page: Page) -> None:
        form = page.get_by_role("dialog")
        field(form, "element_timeout").fill("30")
        open_section(form, "Standard Fields")
        address = urlsplit(monitored.emulator.url)
        field(form, "host").fill(f"{address.scheme}://{address.hostname}")
        field(form, "port").fill(str(address.port))
        field(form, "password").fill(KEY)
        picture(page, "connection-form")
        form.get_by_role("button", name="Save").click()
        expect(page.get_by_role("cell", name="from_the_form")).to_be_visible()
        saved = monitored.airflow.call("GET", "/connections/from_the_form")
        assert (saved["conn_type"], saved["password"]) == ("aixplain", "***")
        assert '"timeout": 30' in saved["extra"]

    def test_the_reopened_form_has_all_fields_except_the_key(self, monitored: Monitored, page: Page) -> None:
        page.get_by_role("button", name="Edit Connection").click()
        form = page.get_by_role("dialog")
        expect(field(form, "host")).to_have_value(re.compile("http://127.0.0.1"))
        assert KEY not in page.content()
        expect(field(form, "password")).not_to_have_value(KEY)
        open_section(form, "Extra Fields")
        expect(field(form, "element_timeout")).to_have_value("30")
        picture(page, "connection-reopened")
        page.keyboard.press("Escape")
        expect(form).to_have_count(0)

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            (KEY, "Test Connection Successful"),
            ("a-key-that-is-not-the-right-one", "Check the API key"),
        ],
    )
    def test_the_button_tests_the_connection(self, monitored: Monitored, page: Page, key: str, message: str) -> None:
        body = {"connection_id": "from_the_form", "conn_type": "aixplain", "password": key}
        monitored.airflow.call("PATCH", "/connections/from_the_form", params={"update_mask": "password"}, json=body)
        page.goto("/connections")
        page.get_by_role("button", name="Test Connection").click()
        expect(page.get_by_role("status").filter(has_text=message)).to_be_visible()
        assert key not in page.content()
        picture(page, f"connection-test-{'good' if key == KEY else 'bad'}")


@pytest.fixture(scope="module")
def task_page(monitored: Monitored) -> str:
    """The path of a finished task's page."""
    return f"/dags/monitored/runs/{monitored.finished}/tasks/run"


@pytest.fixture(scope="module")
def batch_page(monitored: Monitored) -> str:
    """The path of the page of a finished batch, whose results no browser can open."""
    return f"/dags/docs_batch/runs/{monitored.run('docs_batch')}/tasks/analyse"


def test_the_log_reports_the_result(page: Page, task_page: str) -> None:
    page.goto(task_page)
    expect(page.get_by_text(f"model sentiment succeeded after {RUN_SECONDS:.1f} s")).to_be_visible()
    picture(page, "log")


def test_an_extra_link_opens_the_models_page(monitored: Monitored, page: Page, task_page: str) -> None:
    page.goto(f"{task_page}/details")
    link = page.get_by_role("link", name="aiXplain page")
    expect(link).to_be_visible()
    picture(page, "task")
    with page.context.expect_page() as opened:
        link.click()
    expect(opened.value.get_by_role("heading")).to_have_text("VADER")
    assert opened.value.url == f"{monitored.emulator.url}/discover/model/sentiment"
    opened.value.close()


@pytest.mark.parametrize("name", ["Results", "Manifest"])
def test_the_links_of_a_batch_open_its_manifest(page: Page, batch_page: str, name: str) -> None:
    page.goto(f"{batch_page}/details")
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("cell", name="return_value", exact=True)).to_be_visible()
    expect(page.get_by_text("results.jsonl").first).to_be_visible()


def test_the_xcom_page_shows_the_fields(page: Page, task_page: str) -> None:
    page.goto(f"{task_page}/xcom")
    for key in ("used_credits", "run_time", "data"):
        expect(page.get_by_role("cell", name=key, exact=True)).to_be_visible()
    expect(page.get_by_text("positive").first).to_be_visible()
    picture(page, "xcoms")


LIGHT_BACKGROUNDS = """
() => {
  const pixel = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const isLight = element => {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = getComputedStyle(element).backgroundColor;
    pixel.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = pixel.getImageData(0, 0, 1, 1).data;
    return alpha > 0 && red + green + blue > 300;
  };
  const elements = [...document.querySelectorAll("body, .aix, .aix *")];
  return elements.filter(element => element.offsetHeight > 20 && element.ariaPressed !== "true" && isLight(element))
    .map(element => element.outerHTML.slice(0, 100));
}
"""
"""JavaScript that finds what is light in dark mode, except for bars and for the button of the present choice."""


@pytest.fixture(scope="module")
def two_dags(monitored: Monitored) -> None:
    """Runs of a DAG that succeeds and of one that fails."""
    assert monitored.finished
    monitored.run("retried")


@pytest.mark.usefixtures("two_dags")
class TestUsagePage:
    def check_total(self, page: Page, monitored: Monitored, **query: str) -> None:
        credits = monitored.airflow.usage(**query)["totals"]["credits"]
        expect(page.locator(".aix-tiles").get_by_title(f"{credits} credits", exact=True)).to_be_visible()

    def test_the_navigation_opens_a_page_of_all_dags(self, monitored: Monitored, page: Page) -> None:
        page.goto("/")
        page.get_by_role("link", name="aiXplain").click()
        self.check_total(page, monitored)
        for name in ("decorated", "mapped [1]", "fails_twice"):
            expect(page.get_by_role("cell").get_by_role("link", name=name, exact=True).first).to_be_visible()
        picture(page, "usage")

    def test_a_filter_is_in_the_address(self, monitored: Monitored, page: Page) -> None:
        page.goto("/plugin/aixplain")
        self.check_total(page, monitored)  # Airflow mounts the page twice when it loads, which closes an open list
        page.get_by_role("button", name="Model All").click()
        page.get_by_role("checkbox", name="fail").click()  # check() expects its state at once
        page.keyboard.press("Escape")
        expect(page.get_by_role("checkbox")).to_have_count(0)
        expect(page).to_have_url(re.compile("model_id=fail"))
        page.reload()
        self.check_total(page, monitored, model_id="fail")
        expect(page.get_by_role("link", name="decorated")).to_have_count(0)
        page.go_back()
        expect(page.get_by_role("link", name="decorated").first).to_be_visible()

    def test_a_run_links_to_its_task_instance(self, monitored: Monitored, page: Page) -> None:
        page.goto("/plugin/aixplain?dag_id=monitored")
        page.get_by_role("cell").get_by_role("link", name="mapped [1]", exact=True).click()
        expect(page).to_have_url(re.compile(f"/dags/monitored/runs/{monitored.finished}/tasks/mapped/mapped/1"))
        expect(page.get_by_role("link", name="Logs")).to_be_visible()

    def test_the_csv_has_the_same_sum(self, monitored: Monitored, page: Page) -> None:
        page.goto("/plugin/aixplain?model_id=sentiment")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download CSV").click()
        with open(download.value.path(), newline="", encoding="utf-8") as file:
            total = sum(Decimal(row["credits"]) for row in csv.DictReader(file))
        assert total == Decimal(monitored.airflow.usage(model_id="sentiment")["totals"]["credits"]) > 0

    def test_the_tab_of_a_dag_shows_only_this_dag(self, monitored: Monitored, page: Page) -> None:
        page.goto("/dags/retried")
        page.locator("a[href$='/dags/retried/plugin/aixplain-dag']").click()
        self.check_total(page, monitored, dag_id="retried")
        expect(page.get_by_role("link", name="decorated")).to_have_count(0)
        expect(page.get_by_role("button", name=re.compile("^DAG"))).to_have_count(0)

    def test_nothing_is_light_in_dark_mode(self, page: Page) -> None:
        page.goto("/plugin/aixplain")
        expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
        assert page.evaluate(LIGHT_BACKGROUNDS)
        page.emulate_media(color_scheme="dark")
        expect(page.locator("html.dark")).to_have_count(1)
        picture(page, "usage-dark")
        assert page.evaluate(LIGHT_BACKGROUNDS) == []
