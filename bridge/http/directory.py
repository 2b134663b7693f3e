"""`/v1/tenants/TENANT/directory`: apartments, their residents, whom they expect; and importing all of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, ValidationError

from bridge.http.access import Caller, allowed, missing, now
from bridge.http.description import problems
from bridge.http.params import (
    TEXT,
    Body,
    Cursor,
    Expected,
    IdPath,
    LabelPath,
    Limit,
    Needed,
    PageOf,
    TenantPath,
    tag,
)
from bridge.http.problems import Problem, refused_fields
from bridge.http.route import JSON, GuardedRoute, check_type
from bridge.http.tenants import Tenants, changed_meanwhile
from bridge.importing.directories import (
    MAX_ENTRIES,
    entries_of,
    read_directory,
    read_entries,
    taken_over,
)
from bridge.importing.plan import Action, Change
from bridge.importing.plan import Problem as PlanProblem
from bridge.importing.sheet import Sheet
from storage.catalogue import AlreadyThere, Conflict, NotThere, StoredStanding
from storage.paging import Page, cursor_of, key_of
from visits.directory import Apartment, Directory, DirectoryError
from visits.hours import DAYS
from visits.standing import StandingAuthorisation
from visits.words import fold

T = TypeVar("T")
CHANGES: Final = problems(404, 409, 412, 422)
MOST_APARTMENTS: Final = MAX_ENTRIES
MOST_SHOWN: Final = 1000
"""Changes and problems of an import that are told one by one."""
SHEETS: Final = (
    "text/csv",
    "application/json",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/octet-stream",
)
"""What may be imported; which of them it is, its content says."""

Line = Annotated[str, Field(min_length=1, max_length=200, pattern=TEXT)]
Dial = Annotated[str, Field(min_length=1, max_length=200, pattern=TEXT)]
Writer = Annotated[Caller, allowed("directory:write", role="manager")]
Reader = Annotated[Caller, allowed("directory:read")]


class Resident(Body):
    """Somebody who lives there, with more than a name."""

    name: Line
    voip_number: Annotated[tuple[Dial, ...], Field(max_length=20)] = ()
    """Their own numbers, in the order to try."""
    quiet_hours: Annotated[tuple[Line, ...], Field(max_length=20)] = ()
    """When these are not called: `22:00-07:00`."""
    do_not_call: bool = False


class ExpectedVisitor(Body):
    """Somebody whom an apartment expects. It opens nothing: the resident is told of it, and decides."""

    name: Line
    """A visitor's or a company's."""
    days: Annotated[tuple[Line, ...], Field(max_length=7)] = ()
    """`mon` to `sun`; none: every day."""
    hours: Line | None = None
    """`08:00-12:00`; null: at any time."""
    until: Line | None = None
    """The last day, `2026-12-31`; null: until it is taken back."""
    call_resident: bool = True


class ApartmentBody(Body):
    """One apartment."""

    apartment_number: Line
    """`102`, `102 bloco B`, `cobertura 2`."""
    residents: Annotated[list[Line | Resident], Field(min_length=1, max_length=50)]
    voip_number: Annotated[tuple[Dial, ...], Field(max_length=20)] | Dial = ()
    """What to call, in the order to try: SIP URIs or extensions."""
    standing_authorisations: Annotated[tuple[ExpectedVisitor, ...], Field(max_length=100)] = ()


class ShownApartment(BaseModel):
    """One apartment as it is kept."""

    label: str
    """What it is called in paths."""
    apartment_number: str
    residents: list[str | dict[str, Any]]
    voip_number: str | list[str]
    standing_authorisations: list[dict[str, Any]]


class ApartmentsPage(PageOf[ShownApartment]):
    """A page of apartments, in the directory's order."""

    version: int | None
    """The directory's, which a change may name; None: a file has it."""
    kept_in: str | None
    """The file that holds the directory; None: the database, where it can be changed from here."""


class NewVersion(BaseModel):
    """The directory was changed, or was so already."""

    version: int


class ShownStanding(BaseModel):
    """Whom an apartment expects."""

    id: str
    apartment: str
    name: str
    days: list[str]
    hours: str | None
    until: str | None
    call_resident: bool


class StandingBody(ExpectedVisitor):
    """The same, with the apartment that expects them."""

    apartment: Line


class ImportProblem(BaseModel):
    """Why a line can't be taken."""

    place: str
    """`linha 12`, `entry 3`."""
    text: str


class ImportChange(BaseModel):
    """What happens to one apartment."""

    action: Action
    apartment: str
    details: list[str]


class Imported(BaseModel):
    """What an import does, or did."""

    done: bool
    """False: nothing was changed, for a problem or because it was a dry run."""
    version: int | None
    """The directory's, then."""
    apartments: int
    """That there are, then."""
    created: int
    changed: int
    removed: int
    left: int
    changes: list[ImportChange]
    """The first thousand."""
    problems: list[ImportProblem]
    """Likewise. With a single one nothing is taken over."""
    notes: list[str]


class Directories:
    """What the resources of this file do.

    Args:
        tenants: who there is.
    """

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._importing = asyncio.Semaphore(1)

    # ---- reading ---------------------------------------------------------------------------------------

    async def page(
        self, caller: Caller, tenant: str, text: str, after: str | None, limit: int
    ) -> ApartmentsPage:
        """Apartments in whose label and names each word of a text is."""
        await self._tenants.must_be_there(caller, tenant)
        if (file := self._file_of(tenant)) is not None:
            found = await asyncio.to_thread(_found_in, self._in_force(tenant), text, after, limit)
            items = [shown_apartment(one) for one in found.items]
            return ApartmentsPage(items=items, next=found.next, version=None, kept_in=file)
        page = await self._tenants.catalogue.find_apartments(tenant, text, after=after, limit=limit)
        version = await self._version(tenant)
        items = [shown_apartment(one.apartment) for one in page.items]
        return ApartmentsPage(items=items, next=page.next, version=version, kept_in=None)

    async def one(self, caller: Caller, tenant: str, label: str) -> ShownApartment:
        """One apartment. Raises :class:`Problem`."""
        await self._tenants.must_be_there(caller, tenant)
        found: Apartment | None
        if self._file_of(tenant) is not None:
            found = next((one for one in self._in_force(tenant) if one.label == label), None)
        else:
            stored = await self._tenants.catalogue.apartment(tenant, label)
            found = None if stored is None else stored.apartment
        if found is None:
            raise missing("apartment")
        return shown_apartment(found)

    async def standing(
        self, caller: Caller, tenant: str, apartment: str | None, after: str | None, limit: int
    ) -> PageOf[ShownStanding]:
        """Standing authorisations. Those of a file have no ids of their own."""
        await self._tenants.must_be_there(caller, tenant)
        if self._file_of(tenant) is not None:
            every = [
                StoredStanding(tenant, "", one.label, standing)
                for one in self._in_force(tenant)
                if apartment in (None, one.label)
                for standing in one.standing
            ]
            page = _part(every, after, limit)
        else:
            page = await self._tenants.catalogue.standing(tenant, apartment, after=after, limit=limit)
        return PageOf(items=[shown_standing(one) for one in page.items], next=page.next)

    # ---- changing --------------------------------------------------------------------------------------

    async def replace(self, caller: Caller, tenant: str, content: bytes, expected: int) -> NewVersion:
        """Have a list of entries as the directory, and nothing else."""
        await self._must_be_changeable(caller, tenant)
        async with self._importing:
            sheet = await asyncio.to_thread(_entries, content)
            if sheet.problems:
                raise _refused(sheet)
            version = await changed(
                self._tenants.catalogue.replace_directory(
                    tenant, sheet.apartments, expected=expected, by=caller.by, at=now()
                )
            )
        return NewVersion(version=version)

    async def put(
        self, caller: Caller, tenant: str, label: str, body: ApartmentBody, expected: int | None
    ) -> NewVersion:
        """Put an apartment in the place of the one of this label, or at the end."""
        await self._must_be_changeable(caller, tenant)
        apartment = read_apartment(body)
        catalogue = self._tenants.catalogue
        was = "" if await catalogue.apartment(tenant, label) is None else label
        if not was and apartment.label != label:
            detail = f"found {apartment.label!r}; allowed: {label!r}, as the path says"
            raise refused_fields([{"field": "apartment_number", "detail": detail}])
        version = await changed(
            catalogue.put_apartment(tenant, apartment, expected=expected, by=caller.by, at=now(), was=was)
        )
        return NewVersion(version=version)

    async def remove(self, caller: Caller, tenant: str, label: str, expected: int | None) -> None:
        """Remove an apartment."""
        await self._must_be_changeable(caller, tenant)
        catalogue = self._tenants.catalogue
        await changed(catalogue.remove_apartment(tenant, label, expected=expected, by=caller.by, at=now()))

    async def put_standing(
        self, caller: Caller, tenant: str, id: str, body: StandingBody, expected: int | None
    ) -> ShownStanding:
        """Put a standing authorisation; ``id`` empty: a new one."""
        await self._must_be_changeable(caller, tenant)
        authorisation = read_standing(body)
        new, _ = await changed(
            self._tenants.catalogue.put_standing(
                tenant,
                body.apartment,
                authorisation,
                id=id,
                expected=expected,
                by=caller.by,
                at=now(),
            )
        )
        return shown_standing(StoredStanding(tenant, new, body.apartment, authorisation))

    async def remove_standing(self, caller: Caller, tenant: str, id: str, expected: int | None) -> None:
        """Take a standing authorisation back."""
        await self._must_be_changeable(caller, tenant)
        catalogue = self._tenants.catalogue
        await changed(catalogue.remove_standing(tenant, id, expected=expected, by=caller.by, at=now()))

    async def take_over(
        self,
        caller: Caller,
        tenant: str,
        content: bytes,
        *,
        source: str,
        dry_run: bool,
        replacing: bool,
        expected: int | None,
    ) -> Imported:
        """Import a spreadsheet or a list of entries: whole, or not at all."""
        await self._must_be_changeable(caller, tenant)
        catalogue = self._tenants.catalogue
        async with self._importing:
            sheet = await asyncio.to_thread(read_directory, content, source)
            if len(sheet.apartments) > MOST_APARTMENTS:
                raise Problem(422, f"found {len(sheet.apartments)} apartments; allowed are {MOST_APARTMENTS}")
            if sheet.problems and not dry_run:
                raise _refused(sheet)
            stored = await catalogue.directory(tenant)
            found = 0 if stored is None else stored.version
            if expected is not None and expected != found:
                raise changed_meanwhile(Conflict("the directory", expected, found))
            if sheet.problems:
                return _report(sheet, (), 0, done=False, version=found)
            old = () if stored is None else stored.directory.apartments
            changes, whole = await asyncio.to_thread(taken_over, sheet, tenant, old, replacing=replacing)
            if not dry_run:
                found = await changed(
                    catalogue.replace_directory(
                        tenant, whole, expected=found, by=caller.by, at=now(), source=source
                    )
                )
        return _report(sheet, changes, len(whole), done=not dry_run, version=found)

    # ---- where it is kept ------------------------------------------------------------------------------

    def _file_of(self, tenant: str) -> str | None:
        """The name of the file that holds the directory; None: the database does."""
        one = self._tenants.tenancy.in_force.get(tenant)
        file = None if one is None else one.tenant.directory
        return None if file is None else file.name

    def _in_force(self, tenant: str) -> tuple[Apartment, ...]:
        return self._tenants.tenancy.in_force[tenant].directory.apartments

    async def _version(self, tenant: str) -> int:
        return (await self._tenants.catalogue.directory_versions()).get(tenant, 0)

    async def _must_be_changeable(self, caller: Caller, tenant: str) -> None:
        await self._tenants.must_be_there(caller, tenant)
        if (file := self._file_of(tenant)) is not None:
            raise Problem(409, f"found a directory that is kept in {file}; allowed: those of the database")


async def changed(change: Awaitable[T]) -> T:
    """What a change gives. Raises :class:`Problem` where the catalogue refuses it."""
    try:
        return await change
    except Conflict as error:
        raise changed_meanwhile(error) from None
    except NotThere as error:
        raise Problem(404, str(error)) from None
    except AlreadyThere as error:
        raise Problem(409, str(error)) from None


# --------------------------------------------------------------------------------------------------------
# Entries and what they say
# --------------------------------------------------------------------------------------------------------


def read_apartment(body: ApartmentBody) -> Apartment:
    """The apartment that an entry describes. Raises :class:`Problem`."""
    try:
        (apartment,) = Directory.from_records([body.model_dump(exclude_none=True)]).apartments
    except DirectoryError as error:
        raise refused_fields([{"field": "", "detail": str(error).removeprefix("entry 1: ")}]) from None
    return apartment


def read_standing(body: ExpectedVisitor) -> StandingAuthorisation:
    """The standing authorisation that is described. Raises :class:`Problem`."""
    one = {name: value for name, value in body.model_dump(exclude_none=True).items() if name != "apartment"}
    entry = {"apartment_number": "1", "residents": ["Maria"], "voip_number": "1"}
    try:
        (apartment,) = Directory.from_records([{**entry, "standing_authorisations": [one]}]).apartments
    except DirectoryError as error:
        detail = str(error).removeprefix("entry 1: standing authorisation: ")
        raise refused_fields([{"field": "", "detail": detail}]) from None
    return apartment.standing[0]


def shown_apartment(apartment: Apartment) -> ShownApartment:
    """An apartment as an entry says it."""
    (record,) = Directory((apartment,)).records()
    return ShownApartment(label=apartment.label, **{"standing_authorisations": [], **record})


def shown_standing(one: StoredStanding) -> ShownStanding:
    """A standing authorisation as it is shown."""
    authorisation = one.authorisation
    return ShownStanding(
        id=one.id,
        apartment=one.apartment,
        name=authorisation.name,
        days=[DAYS[day] for day in sorted(authorisation.days)],
        hours=None if authorisation.hours is None else str(authorisation.hours),
        until=None if authorisation.until is None else authorisation.until.isoformat(),
        call_resident=authorisation.call_resident,
    )


def _entries(content: bytes) -> Sheet:
    """The apartments of a list of entries in JSON. Raises :class:`Problem`."""
    try:
        entries = entries_of(content)
    except ValueError as error:
        raise Problem(422, f"not a list of apartments in JSON: {error}") from None
    if not entries:
        return Sheet((), ())
    wrong = tuple(_wrong_entries(entries))
    return Sheet((), wrong) if wrong else read_entries(entries, "")


def _wrong_entries(entries: list[Any]) -> Iterator[PlanProblem]:
    """What of the entries is not as :class:`ApartmentBody` has it."""
    for position, entry in enumerate(entries, 1):
        try:
            ApartmentBody.model_validate(entry)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            yield PlanProblem("", f"entry {position}", f"{place}: {first['msg']}")


def _refused(sheet: Sheet) -> Problem:
    return refused_fields([{"field": one.place, "detail": one.text} for one in sheet.problems[:MOST_SHOWN]])


def _report(
    sheet: Sheet, changes: tuple[Change, ...], apartments: int, *, done: bool, version: int
) -> Imported:
    counts = Counter(change.action for change in changes)
    told = [change for change in changes if change.action != "leave"]
    return Imported(
        done=done,
        version=version,
        apartments=apartments,
        created=counts["create"],
        changed=counts["change"],
        removed=counts["remove"],
        left=counts["leave"],
        changes=[
            ImportChange(action=one.action, apartment=one.name, details=list(one.details))
            for one in told[:MOST_SHOWN]
        ],
        problems=[ImportProblem(place=one.place, text=one.text) for one in sheet.problems[:MOST_SHOWN]],
        notes=list(sheet.notes),
    )


def _found_in(apartments: tuple[Apartment, ...], text: str, after: str | None, limit: int) -> Page[Apartment]:
    """Apartments of a file in whose label and names each word is."""
    wanted = fold(text).split()
    if not wanted:
        return _part(apartments, after, limit)
    every = [one for one in apartments if _has(fold(" ".join((one.label, *one.residents))), wanted)]
    return _part(every, after, limit)


def _has(text: str, words: Sequence[str]) -> bool:
    return all(word in text for word in words)


def _part(every: Sequence[T], after: str | None, limit: int) -> Page[T]:
    begin = key_of(after, int)[0] if after is not None else 0
    end = begin + limit
    return Page(tuple(every[begin:end]), cursor_of(end) if end < len(every) else None)


# --------------------------------------------------------------------------------------------------------
# Resources
# --------------------------------------------------------------------------------------------------------


def router(directories: Directories) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(prefix="/tenants/{tenant}/directory", tags=["directory"], route_class=GuardedRoute)
    sheets = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in SHEETS}
    entry = {"$ref": f"#/components/schemas/{ApartmentBody.__name__}"}
    entries = {"type": "array", "maxItems": MOST_APARTMENTS, "items": entry}

    @routes.get("", responses=problems(404))
    async def page(
        caller: Reader,
        tenant: TenantPath,
        response: Response,
        q: Annotated[str, Query(max_length=80, pattern=TEXT, description="Words of labels and names")] = "",
        limit: Limit = 50,
        after: Cursor = None,
    ) -> ApartmentsPage:
        """Apartments, in the directory's order. `ETag` is the directory's version."""
        found = await directories.page(caller, tenant, q, after, limit)
        if found.version is not None:
            response.headers.update(tag(found.version))
        return found

    @routes.put(
        "",
        responses=problems(400, 408, 413, 428) | CHANGES,
        openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": entries}}}},
    )
    async def replace(caller: Writer, tenant: TenantPath, request: Request, expected: Needed) -> NewVersion:
        """Have these apartments, in this order, and no others."""
        check_type(request, (JSON,))
        return await directories.replace(caller, tenant, await request.body(), expected)

    @routes.post(
        "/import",
        responses=problems(408, 413) | CHANGES,
        openapi_extra={"requestBody": {"required": True, "content": sheets}},
    )
    async def import_(
        caller: Writer,
        tenant: TenantPath,
        request: Request,
        expected: Expected,
        dry_run: Annotated[bool, Query(description="Say what would be done, and do nothing")] = False,
        replace: Annotated[bool, Query(description="Apartments that the file has not are removed")] = False,
        name: Annotated[str, Query(max_length=120, pattern=TEXT, description="The file's, for people")] = "",
    ) -> Imported:
        """Import a directory: CSV or XLSX with Portuguese or English headings, or entries as JSON.

        Whole, or not at all: a line that can't be taken is a problem, by its place. A dry run tells all of
        them.
        """
        check_type(request, SHEETS)
        return await directories.take_over(
            caller,
            tenant,
            await request.body(),
            source=name,
            dry_run=dry_run,
            replacing=replace,
            expected=expected,
        )

    @routes.get("/apartments/{label}", responses=problems(404))
    async def one(caller: Reader, tenant: TenantPath, label: LabelPath) -> ShownApartment:
        """One apartment."""
        return await directories.one(caller, tenant, label)

    @routes.put("/apartments/{label}", responses=CHANGES)
    async def put(
        caller: Writer,
        tenant: TenantPath,
        label: LabelPath,
        body: ApartmentBody,
        expected: Expected,
        response: Response,
    ) -> NewVersion:
        """Put one apartment: a new one at the end, or in the place of the one that has this label."""
        version = await directories.put(caller, tenant, label, body, expected)
        response.headers.update(tag(version.version))
        return version

    @routes.delete("/apartments/{label}", status_code=204, responses=CHANGES)
    async def remove(caller: Writer, tenant: TenantPath, label: LabelPath, expected: Expected) -> None:
        """Remove one apartment."""
        await directories.remove(caller, tenant, label, expected)

    @routes.get("/standing", responses=problems(404))
    async def standing(
        caller: Reader,
        tenant: TenantPath,
        apartment: Annotated[str | None, Query(max_length=80, pattern=TEXT)] = None,
        limit: Limit = 50,
        after: Cursor = None,
    ) -> PageOf[ShownStanding]:
        """Whom apartments expect, in the directory's order. Those that a file holds have no id."""
        return await directories.standing(caller, tenant, apartment, after, limit)

    @routes.post("/standing", status_code=201, responses=CHANGES)
    async def add_standing(
        caller: Writer, tenant: TenantPath, body: StandingBody, expected: Expected
    ) -> ShownStanding:
        """Have an apartment expect somebody."""
        return await directories.put_standing(caller, tenant, "", body, expected)

    @routes.put("/standing/{id}", responses=CHANGES)
    async def put_standing(
        caller: Writer, tenant: TenantPath, id: IdPath, body: StandingBody, expected: Expected
    ) -> ShownStanding:
        """Change whom an apartment expects."""
        return await directories.put_standing(caller, tenant, id, body, expected)

    @routes.delete("/standing/{id}", status_code=204, responses=CHANGES)
    async def remove_standing(caller: Writer, tenant: TenantPath, id: IdPath, expected: Expected) -> None:
        """Expect them no longer."""
        await directories.remove_standing(caller, tenant, id, expected)

    return routes
