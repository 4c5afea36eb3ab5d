"""libclang by bare ctypes: just the calls the indexer makes, at the price of one foreign call each.

``clang.cindex`` wraps every cursor in Python objects and costs twenty times the walk itself. Here a cursor is
the
C structure that libclang hands to the visitor, and callers read its words directly:

    Cursor (CXCursor)   kind   which kind of node (the K_* numbers)
                        d0     the Decl of a declaration; the enclosing Decl of an expression
                        d1     the Stmt of an expression or statement
                        d2     the translation unit
    Location (CXSourceLocation)   raw   offset into clang's own address space; the top bit marks a macro

- `library()` loads the wheel's libclang once and declares the prototypes.
- `children()`: the cursors below one; `trim()`: memory back to the system.
- `text()` turns a CXString into `str` and frees it.
- `VISITOR` is the callback type of ``clang_visitChildren``.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import os
from ctypes import POINTER, PYFUNCTYPE, Structure, byref, c_char_p, c_int, c_uint, c_void_p
from pathlib import Path
from typing import Any

from graphs.errors import GraphsError

# Kinds of cursors (enum CXCursorKind).
K_STRUCT, K_UNION, K_ENUM, K_FIELD, K_ENUMCONST = 2, 3, 5, 6, 7
K_FUNCTION, K_VAR, K_PARM, K_TYPEDEF = 8, 9, 10, 20
K_TYPEREF, K_MEMBERREF = 43, 47
K_UNEXPOSED, K_DECLREF, K_MEMBER, K_CALL = 100, 101, 102, 103
K_INT, K_STRING, K_PAREN, K_UNARY, K_SUBSCRIPT, K_BINARY = 106, 109, 111, 112, 113, 114
K_COMPOUND_ASSIGN, K_CONDITIONAL, K_CAST, K_COMPOUND_LITERAL = 115, 116, 117, 118
K_INITLIST, K_STMTEXPR, K_GENERIC, K_SIZEOF = 119, 121, 122, 136
K_COMPOUND, K_CASE, K_DEFAULT, K_SWITCH, K_RETURN, K_DECLSTMT = 202, 203, 204, 206, 214, 231
K_UNEXPOSED_ATTR = 400
K_MACRO_DEFINITION, K_MACRO_EXPANSION, K_INCLUSION = 501, 502, 503

# Kinds of types (enum CXTypeKind) that matter for pointers to functions.
T_VOID, T_BOOL, T_LAST_INTEGER, T_FIRST_FLOAT, T_LAST_FLOAT = 2, 3, 20, 21, 23
T_POINTER, T_RECORD, T_ENUM, T_TYPEDEF = 101, 105, 106, 107
T_FUNCTION_NOPROTO, T_FUNCTION, T_CONSTANT_ARRAY, T_INCOMPLETE_ARRAY = 110, 111, 112, 114
T_VARIABLE_ARRAY, T_ELABORATED = 115, 119
ARRAYS = frozenset({T_CONSTANT_ARRAY, T_INCOMPLETE_ARRAY, T_VARIABLE_ARRAY})
FUNCTIONS = frozenset({T_FUNCTION_NOPROTO, T_FUNCTION})

OP_ASSIGN, OP_COMMA = 22, 33  # enum CXBinaryOperatorKind
OP_POSTINC, OP_PREDEC, OP_ADDRESS, OP_DEREF = 1, 4, 5, 6  # enum CXUnaryOperatorKind

STORAGE_EXTERN = 2
LINKAGE_NONE, LINKAGE_INTERNAL, LINKAGE_EXTERNAL = 1, 2, 4

PARSE_KEEP_GOING = 0x200
PARSE_FOR_SERIALIZATION = 0x10
PARSE_INCOMPLETE = 0x02
PARSE_DETAILED_RECORD = 0x01

BREAK, CONTINUE, RECURSE = 0, 1, 2
_TERSE = 17  # CXPrintingPolicy_TerseOutput
_COUNTED = 2  # CXS_StringBuf


class Cursor(Structure):
    """CXCursor, passed by value."""

    _fields_ = (("kind", c_int), ("xdata", c_int), ("d0", c_void_p), ("d1", c_void_p), ("d2", c_void_p))


class Type(Structure):
    """CXType."""

    _fields_ = (("kind", c_int), ("d0", c_void_p), ("d1", c_void_p))


class Location(Structure):
    """CXSourceLocation."""

    _fields_ = (("p0", c_void_p), ("p1", c_void_p), ("raw", c_uint))


class Range(Structure):
    """CXSourceRange."""

    _fields_ = (("p0", c_void_p), ("p1", c_void_p), ("begin", c_uint), ("end", c_uint))


class String(Structure):
    """CXString."""

    _fields_ = (("data", c_char_p), ("flags", c_uint))


VISITOR = PYFUNCTYPE(c_int, Cursor, Cursor, c_void_p)
INCLUSION_VISITOR = PYFUNCTYPE(None, c_void_p, c_void_p, c_uint, c_void_p)

_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "createIndex": (c_void_p, c_int, c_int),
    "disposeIndex": (None, c_void_p),
    "parseTranslationUnit2": (
        c_int,
        c_void_p,
        c_char_p,
        POINTER(c_char_p),
        c_int,
        c_void_p,
        c_uint,
        c_uint,
        POINTER(c_void_p),
    ),
    "disposeTranslationUnit": (None, c_void_p),
    "saveTranslationUnit": (c_int, c_void_p, c_char_p, c_uint),
    "getTranslationUnitCursor": (Cursor, c_void_p),
    "visitChildren": (c_uint, Cursor, VISITOR, c_void_p),
    "getInclusions": (None, c_void_p, INCLUSION_VISITOR, c_void_p),
    "getCursorReferenced": (Cursor, Cursor),
    "getCursorDefinition": (Cursor, Cursor),
    "getCanonicalCursor": (Cursor, Cursor),
    "getCursorSemanticParent": (Cursor, Cursor),
    "isCursorDefinition": (c_uint, Cursor),
    "getCursorLinkage": (c_int, Cursor),
    "Cursor_getStorageClass": (c_int, Cursor),
    "getCursorSpelling": (String, Cursor),
    "Cursor_isAnonymous": (c_uint, Cursor),
    "Cursor_isAnonymousRecordDecl": (c_uint, Cursor),
    "Cursor_isFunctionInlined": (c_uint, Cursor),
    "getCursorLocation": (Location, Cursor),
    "getCursorExtent": (Range, Cursor),
    "getRangeStart": (Location, Range),
    "getRangeEnd": (Location, Range),
    "getExpansionLocation": (
        None,
        Location,
        POINTER(c_void_p),
        POINTER(c_uint),
        POINTER(c_uint),
        POINTER(c_uint),
    ),
    "getLocationForOffset": (Location, c_void_p, c_void_p, c_uint),
    "getFile": (c_void_p, c_void_p, c_char_p),
    "getFileName": (String, c_void_p),
    "getCursorType": (Type, Cursor),
    "getCanonicalType": (Type, Type),
    "getPointeeType": (Type, Type),
    "getArrayElementType": (Type, Type),
    "getArraySize": (ctypes.c_longlong, Type),
    "getResultType": (Type, Type),
    "getNumArgTypes": (c_int, Type),
    "getArgType": (Type, Type, c_uint),
    "isFunctionTypeVariadic": (c_uint, Type),
    "getTypeSpelling": (String, Type),
    "getTypeDeclaration": (Cursor, Type),
    "Cursor_getVarDeclInitializer": (Cursor, Cursor),
    "getEnumConstantDeclValue": (ctypes.c_longlong, Cursor),
    "getCursorBinaryOperatorKind": (c_int, Cursor),
    "getCursorUnaryOperatorKind": (c_int, Cursor),
    "getNumDiagnostics": (c_uint, c_void_p),
    "getDiagnostic": (c_void_p, c_void_p, c_uint),
    "getDiagnosticSeverity": (c_int, c_void_p),
    "getDiagnosticSpelling": (String, c_void_p),
    "getDiagnosticLocation": (Location, c_void_p),
    "disposeDiagnostic": (None, c_void_p),
    "getCString": (c_char_p, String),
    "disposeString": (None, String),
    "getClangVersion": (String,),
    "getCursorPrintingPolicy": (c_void_p, Cursor),
    "PrintingPolicy_setProperty": (None, c_void_p, c_int, c_uint),
    "PrintingPolicy_dispose": (None, c_void_p),
    "getCursorPrettyPrinted": (String, Cursor, c_void_p),
}

# Calls that other threads should not wait for.
_LONG = frozenset({"parseTranslationUnit2", "saveTranslationUnit", "disposeTranslationUnit"})


class Library:
    """The declared functions of libclang, without their ``clang_`` prefix."""

    def __init__(self, path: str) -> None:
        try:
            dll, slow = ctypes.PyDLL(path), ctypes.CDLL(path)
        except OSError as error:
            raise GraphsError(
                f"libclang cannot be loaded from {path}: {error}; reinstall the libclang package"
            ) from None
        for name, (result, *arguments) in _PROTOTYPES.items():
            try:
                # Short calls keep the interpreter: to let go of it and take it back costs more than they do.
                function = getattr(slow if name in _LONG else dll, "clang_" + name)
            except AttributeError:
                raise GraphsError(f"{path} lacks clang_{name}; install libclang 18.1 or later") from None
            function.restype = result
            function.argtypes = arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"clang_{name} is not declared")


# Parsing happens in threads of ours, with room enough: clang need not start another for each file.
os.environ.setdefault("LIBCLANG_NOTHREADS", "1")


@functools.cache
def library() -> Library:
    """Load the libclang that the ``libclang`` wheel carries.

    Raises
    ------
    GraphsError
        when the wheel is absent or too old.
    """
    import importlib.util

    spec = importlib.util.find_spec("clang")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "native", "libclang.so")
        if path.exists():
            return Library(str(path))
    raise GraphsError("reading C needs libclang 18: pip install 'studykvm[index]'")


def text(string: String) -> str:
    """`str` of a CXString, which is freed."""
    lib = library()
    flags = string.flags
    # Bytes that are counted have a head of clang's own; others can be read as they are.
    data: bytes | None = lib.getCString(string) if flags == _COUNTED else string.data
    if flags:  # else it is clang's own memory, with nothing to free
        lib.disposeString(string)
    return data.decode(errors="replace") if data else ""


def version() -> str:
    """What libclang calls itself, e.g. ``clang version 18.1.1``."""
    return text(library().getClangVersion())


_FILE, _LINE, _COLUMN, _OFFSET = c_void_p(), c_uint(), c_uint(), c_uint()
_ANSWERS = byref(_FILE), byref(_LINE), byref(_COLUMN), byref(_OFFSET)


def expansion(location: Location) -> tuple[int, int, int, int]:
    """(CXFile as int, line, column, offset) where the text that made `location` stands; CXFile 0 if nowhere.

    Only for the thread that walks: the answer's memory is used again.
    """
    library().getExpansionLocation(location, *_ANSWERS)
    return _FILE.value or 0, _LINE.value, _COLUMN.value, _OFFSET.value


def expanded(location: Location) -> tuple[int, int]:
    """CXFile and offset of `expansion`: for less than half the price, since clang need not count lines."""
    library().getExpansionLocation(location, _ANSWERS[0], None, None, _ANSWERS[3])
    return _FILE.value or 0, _OFFSET.value


def declaration(cursor: Cursor) -> str:
    """A declaration in C, with its attributes, without a body."""
    lib = library()
    policy = c_void_p(lib.getCursorPrintingPolicy(cursor))
    lib.PrintingPolicy_setProperty(policy, _TERSE, 1)
    printed = text(lib.getCursorPrettyPrinted(cursor, policy))
    lib.PrintingPolicy_dispose(policy)
    return printed


_found: list[Cursor] = []


def _take(child: Cursor, _parent: Cursor, _data: object) -> int:
    _found.append(child)
    return CONTINUE


_TAKE = VISITOR(_take)


def children(cursor: Cursor, into: list[Cursor]) -> None:
    """Append the cursors directly below `cursor`. Only for the thread that walks."""
    _found.clear()
    library().visitChildren(cursor, _TAKE, None)
    into += _found
    _found.clear()


def trim() -> None:
    """Give memory that clang has freed back to the system, where the C library can."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
