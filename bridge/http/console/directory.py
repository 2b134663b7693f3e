"""A tenant's directory: apartments, whom they expect, and a whole directory out of a spreadsheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from pydantic import ValidationError
from starlette.responses import Response
from starlette.routing import Route

from bridge.http.access import CSRF_HEADER, form_parts
from bridge.http.console.page import ROOT, Notice
from bridge.http.console.site import Asked, Form, Site
from bridge.http.console.wrong import in_words, invalid, of_entry
from bridge.http.directory import (
    ApartmentBody,
    Directories,
    Imported,
    ShownApartment,
    StandingBody,
    read_apartment,
)
from bridge.http.multipart import is_multipart
from bridge.http.problems import Problem
from bridge.http.tenants import Tenants
from visits.hours import DAYS

PER_PAGE: Final = 50
MORE: Final = 2
"""Empty lines below those that are filled in."""
MOST_RESIDENTS: Final = 50
MOST_EXPECTED: Final = 100


def routes(site: Site, tenants: Tenants, directories: Directories) -> list[Route]:
    """The pages of this file."""

    async def apartments(asked: Asked) -> Response:
        name = asked.path("tenant")
        found = await tenants.settings(asked.caller, name)
        q = asked.query("q", 80)
        page = await directories.page(asked.caller, name, q, asked.query("after", 400) or None, PER_PAGE)
        may = _may_write(asked) and page.kept_in is None
        later = bool(asked.query("after"))
        return await asked.show("directory.html", found=found, page=page, q=q, may_write=may, later=later)

    async def new(asked: Asked) -> Response:
        found = await tenants.settings(asked.caller, asked.path("tenant"))
        version = (await directories.page(asked.caller, found.id, "", None, 1)).version or 0
        return await _show_apartment(asked, found, "", EMPTY, version, may=True)

    async def one(asked: Asked) -> Response:
        name = asked.path("tenant")
        found = await tenants.settings(asked.caller, name)
        apartment = await directories.one(asked.caller, name, asked.path("label"))
        page = await directories.page(asked.caller, name, "", None, 1)
        return await _show_apartment(
            asked,
            found,
            apartment.label,
            _entry(apartment),
            page.version or 0,
            may=_may_write(asked) and page.kept_in is None,
        )

    async def save(asked: Asked) -> Response:
        name, form = asked.path("tenant"), await asked.form()
        found = await tenants.settings(asked.caller, name)
        label = form.one("label")
        entry = read_entry(form)
        try:
            body = ApartmentBody.model_validate(entry)
            target = label or _label(body)
            await directories.put(asked.caller, name, target, body, _version(form))
        except ValidationError as error:
            wrong = invalid(asked.t, error)
        except Problem as problem:
            wrong = _wrong(asked, problem)
        else:
            return asked.see(f"/tenants/{name}/directory", "saved")
        return await _show_apartment(
            asked, found, label, entry, _version(form), may=True, wrong=wrong, status=422
        )

    async def remove(asked: Asked) -> Response:
        name, form = asked.path("tenant"), await asked.form()
        await directories.remove(asked.caller, name, form.one("label"), _version(form))
        return asked.see(f"/tenants/{name}/directory", "removed")

    async def standing(asked: Asked) -> Response:
        return await _show_standing(asked, {}, [])

    async def _show_standing(asked: Asked, entry: Mapping[str, Any], wrong: Sequence[str]) -> Response:
        name = asked.path("tenant")
        found = await tenants.settings(asked.caller, name)
        after = asked.query("after", 400) or None
        page = await directories.standing(
            asked.caller, name, asked.query("apartment", 80) or None, after, PER_PAGE
        )
        first = await directories.page(asked.caller, name, "", None, 200)
        return await asked.show(
            "standing.html",
            status=422 if wrong else 200,
            found=found,
            page=page,
            later=bool(after),
            version=first.version or 0,
            labels=[one.label for one in first.items],
            days=DAYS,
            entry=entry,
            wrong=wrong,
            may_write=_may_write(asked) and first.kept_in is None,
        )

    async def add_standing(asked: Asked) -> Response:
        name, form = asked.path("tenant"), await asked.form()
        entry = read_standing_entry(form)
        try:
            body = StandingBody.model_validate(entry)
            await directories.put_standing(asked.caller, name, "", body, None)
        except ValidationError as error:
            wrong = invalid(asked.t, error)
        except Problem as problem:
            wrong = _wrong(asked, problem)
        else:
            return asked.see(f"/tenants/{name}/standing", "saved")
        return await _show_standing(asked, entry, wrong)

    async def remove_standing(asked: Asked) -> Response:
        name, form = asked.path("tenant"), await asked.form()
        await directories.remove_standing(asked.caller, name, form.one("id"), None)
        return asked.see(f"/tenants/{name}/standing", "removed")

    async def show_import(asked: Asked) -> Response:
        found = await tenants.settings(asked.caller, asked.path("tenant"))
        page = await directories.page(asked.caller, found.id, "", None, 1)
        given: dict[str, Any] = {"report": None, "name": "", "replacing": False, "sent": False}
        return await asked.show(
            "directory_import.html", found=found, page=page, csrf_header=CSRF_HEADER, **given
        )

    async def import_(asked: Asked) -> Response:
        """The file is the whole body; the page's script shows the report, and sends it again to confirm.

        A browser without scripts sends a form; by which button, says what is to be done.
        """
        name = asked.path("tenant")
        found = await tenants.settings(asked.caller, name)
        if is_multipart(asked.request.headers.get("content-type", "")):
            file, content, replacing, confirmed = await _sent_form(asked)
        else:
            file, replacing = asked.query("name", 120), asked.query("replace") == "1"
            content, confirmed = await asked.request.body(), asked.query("confirm", 15)
        if confirmed and not (confirmed.isascii() and confirmed.isdecimal()):
            raise Problem(400, f"confirm: found {confirmed!r}; allowed: the version that was shown")
        try:
            report = await directories.take_over(
                asked.caller,
                name,
                content,
                source=file,
                dry_run=not confirmed,
                replacing=replacing,
                expected=int(confirmed) if confirmed else None,
            )
        except Problem as problem:
            if problem.status not in (412, 422):
                raise
            return await _show_report(asked, found, None, file, replacing, _wrong(asked, problem))
        if report.done:
            return asked.see(f"/tenants/{name}/directory", "imported")
        return await _show_report(asked, found, report, file, replacing, [])

    async def _show_report(
        asked: Asked, found: Any, report: Imported | None, file: str, replacing: bool, wrong: Sequence[str]
    ) -> Response:
        return await asked.show(
            "directory_report.html",
            status=422 if wrong else 200,
            found=found,
            report=report,
            name=file,
            replacing=replacing,
            wrong=wrong,
        )

    writes: dict[str, Any] = {"role": "manager", "methods": "POST"}
    at = "/tenants/{tenant}/directory"
    return [
        site.page(at, apartments, "directory:read"),
        site.page(f"{at}/new", new, "directory:write", role="manager"),
        site.page(f"{at}/apartments", save, "directory:write", **writes),
        site.page(f"{at}/apartments/{{label}}", one, "directory:read"),
        site.page(f"{at}/remove", remove, "directory:write", **writes),
        site.page(f"{at}/import", show_import, "directory:write", role="manager"),
        site.page(f"{at}/import", import_, "directory:write", **writes),
        site.page("/tenants/{tenant}/standing", standing, "directory:read"),
        site.page("/tenants/{tenant}/standing", add_standing, "directory:write", **writes),
        site.page("/tenants/{tenant}/standing/remove", remove_standing, "directory:write", **writes),
    ]


async def _sent_form(asked: Asked) -> tuple[str, bytes, bool, str]:
    """Of an import's form: the file's name, the file, whether it is all there is, and the version to change.

    Raises:
        Problem: it is no such form.
    """
    parts = await form_parts(asked.request)
    said = {part.name: part.content.decode("utf-8", "replace") for part in parts if part.file_name is None}
    file = next((part for part in parts if part.file_name), None)
    name, content = ("", b"") if file is None else (file.file_name or "", file.content)
    shown = "".join(char for char in name if char.isprintable())[-120:]
    return shown, content, "replace" in said, said.get("version", "") if "import" in said else ""


# --------------------------------------------------------------------------------------------------------
# An entry and its form
# --------------------------------------------------------------------------------------------------------

EMPTY: Final[dict[str, Any]] = {
    "apartment_number": "",
    "residents": [],
    "voip_number": [],
    "standing_authorisations": [],
}


def _entry(apartment: ShownApartment) -> dict[str, Any]:
    """An apartment as its form shows it: every resident with all that can be said of one."""
    residents = [{"name": one} if isinstance(one, str) else one for one in apartment.residents]
    dial = apartment.voip_number
    return {
        "apartment_number": apartment.apartment_number,
        "residents": residents,
        "voip_number": [dial] if isinstance(dial, str) else dial,
        "standing_authorisations": apartment.standing_authorisations,
    }


def read_entry(form: Form) -> dict[str, Any]:
    """The entry that a form describes: numbers one a line, in the order to try."""
    residents = []
    for row in range(MOST_RESIDENTS):
        name = form.one(f"resident.{row}.name")
        if not name:
            continue
        resident: dict[str, Any] = {"name": name}
        if dial := _lines(form.one(f"resident.{row}.dial")):
            resident["voip_number"] = dial
        if quiet := _lines(form.one(f"resident.{row}.quiet")):
            resident["quiet_hours"] = quiet
        if form.one(f"resident.{row}.do_not_call"):
            resident["do_not_call"] = True
        residents.append(resident)
    standing = []
    for row in range(MOST_EXPECTED):
        if form.one(f"standing.{row}.name"):
            standing.append(read_standing_entry(form, f"standing.{row}."))
    return {
        "apartment_number": form.one("apartment_number"),
        # A name alone stays one, as files write it.
        "residents": [one if len(one) > 1 else one["name"] for one in residents],
        "voip_number": _lines(form.one("dial")),
        "standing_authorisations": standing,
    }


def read_standing_entry(form: Form, prefix: str = "") -> dict[str, Any]:
    """Whom an apartment expects, as a form says it."""
    entry: dict[str, Any] = {"name": form.one(f"{prefix}name")}
    if days := form.all(f"{prefix}days"):
        entry["days"] = days
    for name in ("hours", "until"):
        if value := form.one(f"{prefix}{name}"):
            entry[name] = value
    entry["call_resident"] = form.one(f"{prefix}call_resident") != "false"
    if not prefix:
        entry["apartment"] = form.one("apartment")
    return entry


def _label(body: ApartmentBody) -> str:
    """What a new apartment is called in paths."""
    return read_apartment(body).label


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.replace(",", "\n").splitlines() if line.strip()]


def _version(form: Form) -> int | None:
    text = form.one("version")
    return int(text) if text.isdecimal() and len(text) <= 15 else None


def _may_write(asked: Asked) -> bool:
    return asked.caller.may("directory:write") and asked.caller.at_least("manager")


def _wrong(asked: Asked, problem: Problem) -> list[str]:
    if problem.status == 412:
        return [asked.t("error.409.text")]
    if problem.status not in (409, 422):
        raise problem
    lines = [
        f"{asked.t.of('form', one['field'])}: {in_words(asked.t, one['detail'])}"
        if one["field"]
        else of_entry(asked.t, one["detail"])
        for one in problem.problems
    ]
    return lines or [in_words(asked.t, problem.detail)]


async def _show_apartment(
    asked: Asked,
    found: Any,
    label: str,
    entry: Mapping[str, Any],
    version: int | None,
    *,
    may: bool,
    wrong: Sequence[str] = (),
    status: int = 200,
) -> Response:
    residents = [one if isinstance(one, Mapping) else {"name": one} for one in entry["residents"]]
    notices = {"notices": [Notice("bad", line) for line in wrong]} if wrong else {}
    return await asked.show(
        "apartment.html",
        status=status,
        found=found,
        label=label,
        entry=entry,
        residents=[*residents, *([{"name": ""}] * MORE if may else [])],
        days=DAYS,
        version=version or 0,
        may_write=may,
        back=f"{ROOT}/tenants/{quote(found.id)}/directory",
        **notices,
    )
