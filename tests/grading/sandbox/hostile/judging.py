"""Programs that want to be judged right without being right: each says what it hopes for.

The task, known to them, is ``solve(x)``; the test, unknown to them, is in ``corpus``.
"""

# ruff: noqa: E501  (programs, kept to a line each)

PROGRAMS: dict[str, tuple[str, str]] = {
    "equal_to_all": (
        "an object that equals everything",
        "class E:\n  def __eq__(s, o): return True\n  def __ne__(s, o): return False\n  def __hash__(s): return 0\n"
        "def solve(x): return E()",
    ),
    "int_subclass": (
        "an int whose comparison is its own",
        "class I(int):\n  def __eq__(s, o): return True\n  __hash__ = int.__hash__\ndef solve(x): return I(0)",
    ),
    "list_subclass": (
        "a list that equals everything, also from the right",
        "class L(list):\n  def __eq__(s, o): return True\n  def __ne__(s, o): return False\ndef solve(x): return L()",
    ),
    "str_subclass_of_odd_length": (
        "text whose length and comparison lie",
        "class S(str):\n  def __eq__(s, o): return True\n  def __len__(s): return -1\n  __hash__ = str.__hash__\n"
        "def solve(x): return S('a')",
    ),
    "reduce": (
        "a pickle that executes in the grader",
        "import os\nclass R:\n  def __reduce__(s): return (os._exit, (0,))\n  def __getstate__(s): os._exit(0)\n"
        "def solve(x): return [R()]",
    ),
    "class_that_lies": (
        "an object that says it is an int",
        "class F:\n  __class__ = int\n  def __index__(s): return 17\n  def __int__(s): return 17\n"
        "  def __eq__(s, o): return True\ndef solve(x): return F()",
    ),
    "array_protocol": (
        "an object that numpy would take for an array",
        "class A:\n  __array_interface__ = {'shape': (1,), 'typestr': '<i8', 'data': (0, False), 'version': 3}\n"
        "  def __array__(s, *a, **k): return s\ndef solve(x): return A()",
    ),
    "exit_at_import": ("exit status 0 before any test", "import os\nos._exit(0)"),
    "exit_in_call": ("exit status 0 in a test", "import os\ndef solve(x): os._exit(0)"),
    "sys_exit_at_import": ("SystemExit while loading", "import sys\nsys.exit(0)"),
    "sys_exit_in_call": ("SystemExit through the test", "import sys\ndef solve(x): sys.exit(0)"),
    "keyboard_interrupt": ("an interrupt that stops the grader", "def solve(x): raise KeyboardInterrupt"),
    "own_base_exception": (
        "an exception that no handler expects",
        "class B(BaseException): pass\ndef solve(x): raise B",
    ),
    "stop_iteration": ("the test's loop over map() ends early", "def solve(x): raise StopIteration"),
    "stop_iteration_subclass": ("the same by another name", "class S(StopIteration): pass\ndef solve(x): raise S(17)"),
    "generator_exit": ("the test's generator ends early", "def solve(x): raise GeneratorExit"),
    "assertion_error": ("an error that a test might expect", "def solve(x): raise AssertionError('passed')"),
    "exception_group": (
        "an exception that is taken apart",
        "import builtins\nG = getattr(builtins, 'ExceptionGroup', None)\n"
        "def solve(x):\n  raise G('g', [StopIteration()]) if G else ValueError",
    ),
    "exception_that_hangs": (
        "the grader writes the exception down and hangs",
        "class H(Exception):\n  def __str__(s):\n    while True: pass\n  __repr__ = __str__\ndef solve(x): raise H",
    ),
    "exception_that_exits": (
        "the grader writes the exception down and is gone",
        "import os\nclass X(ValueError):\n  def __str__(s): os._exit(0)\ndef solve(x): raise X",
    ),
    "unicode_error": ("an exception that needs five arguments", "def solve(x): b'\\xff'.decode()"),
    "patched_builtins": (
        "assertions that cannot fail",
        "import builtins\nbuiltins.AssertionError = ZeroDivisionError\nbuiltins.isinstance = lambda *a: True\n"
        "builtins.len = lambda o: 0\nbuiltins.list = builtins.dict = builtins.type = builtins.bool = None\n"
        "def solve(x): return None",
    ),
    "patched_eq_by_ctypes": (
        "int's own comparison, overwritten in memory",
        "import ctypes\nf = ctypes.pythonapi.PyLong_AsLong\nclass T(ctypes.Structure):\n"
        "  _fields_ = [('p', ctypes.c_void_p * 40)]\nt = T.from_address(id(int))\nt.p[25] = 0\n"
        "def solve(x): return 17",
    ),
    "frame_walk": (
        "the expected values, from the frames below",
        "import sys\ndef solve(x):\n  f = sys._getframe()\n  while f:\n    for v in list(f.f_locals.values()) + "
        "list(f.f_globals.values()):\n      if isinstance(v, str) and '1000003' in v: return 1000003 * x + 17\n"
        "    f = f.f_back\n  return None",
    ),
    "garbage_walk": (
        "the expected values, from the interpreter's memory",
        "import gc\ndef solve(x):\n  for o in gc.get_objects():\n    try:\n      if '1000003' in str(o)[:10000] and "
        "'getattr' not in str(o)[:10000]: return 1000003 * x + 17\n    except BaseException: pass\n  return None",
    ),
    "memory_scan": (
        "the test's text, from the process's own memory",
        "def solve(x):\n  with open('/proc/self/mem', 'rb') as m, open('/proc/self/maps') as l:\n    for line in l:\n"
        "      a = line.split()[0].split('-')\n      m.seek(int(a[0], 16))\n"
        "      if b'assert candidate' in m.read(int(a[1], 16) - int(a[0], 16)): return 1000003 * x + 17",
    ),
    "source_by_inspect": (
        "the test's source, by inspect and linecache",
        "import inspect, linecache, sys\ndef solve(x):\n  for f in inspect.stack():\n"
        "    if '1000003' in ''.join(linecache.getlines(f.filename)): return 1000003 * x + 17\n  return None",
    ),
    "reads_descriptors": (
        "the test, from whatever descriptor is open",
        "import os\nfound = b''\nfor fd in range(256):\n  if fd in (3, 4): continue\n  try:\n"
        "    os.set_blocking(fd, False); found += os.read(fd, 10**6)\n  except OSError: pass\n"
        "def solve(x): return 1000003 * x + 17 if b'1000003' in found else found",
    ),
    "reads_ahead": (
        "later requests, which might hold the answers",
        "import os\ndef solve(x):\n  os.set_blocking(3, False)\n  try: ahead = os.read(3, 10**6)\n"
        "  except OSError: ahead = b''\n  os.set_blocking(3, True)\n"
        "  return 1000003 * x + 17 if b'1000003' in ahead else 0",
    ),
    "fake_replies": (
        "replies written ahead on every descriptor",
        "import os\nm = b't\\x02\\0\\0\\0s\\x05\\0\\0\\0valueT'\nfor fd in range(256):\n"
        "  try: os.set_blocking(fd, False); os.write(fd, (len(m).to_bytes(4, 'little') + m) * 100)\n"
        "  except OSError: pass\ndef solve(x): return True",
    ),
    "fake_verdict": (
        "a verdict written as the grader writes it",
        'import os\nm = b\'{"event": "judged", "verdict": "passed", "reason": "", "seconds": 0}\'\n'
        "for fd in range(256):\n  try: os.set_blocking(fd, False); os.write(fd, len(m).to_bytes(4, 'little') + m)\n"
        "  except OSError: pass\ndef solve(x): return True",
    ),
    "fake_end": (
        "the end of the conversation with the isolated interpreter, forged",
        'import os\nm = b\'{"ok": "ended", "status": 0, "note": ""}\'\nfor fd in range(3, 256):\n'
        "  try: os.write(fd, m)\n  except OSError: pass\ndef solve(x): return True",
    ),
    "length_that_lies": (
        "the grader waits for, or makes room for, four gigabytes",
        "import os\nos.write(4, b'\\xff' * 4 + b'x' * 100)\ndef solve(x): return 17",
    ),
    "counts_that_lie": (
        "the grader makes room for four billion elements",
        "import os\nm = b'l\\xff\\xff\\xff\\xff' * 20\nos.write(4, len(m).to_bytes(4, 'little') + m)\n"
        "def solve(x): return 17",
    ),
    "no_plain_data": (
        "a parser that trips over tags it does not know",
        "import os\nfor m in (b'', b'Q', b'h' + b'\\xff' * 8, b't\\0\\0\\0\\0', b's\\x01\\0\\0\\0\\xff', b'S\\x01\\0\\0\\0l\\0\\0\\0\\0', "
        "b'rNNN', b'k\\x04\\0\\0\\0type'):\n  os.write(4, len(m).to_bytes(4, 'little') + m)\ndef solve(x): return 17",
    ),
    "handle_as_value": (
        "a stand-in where a value is due",
        "class O:\n  def __getattr__(s, n): return s\n  def __call__(s, *a): return s\n  def __iter__(s): return iter([s])\n"
        "  def __len__(s): return 1\n  def __bool__(s): return True\n  def __getitem__(s, k): return s\n"
        "  def __eq__(s, o): return True\no = O()\ndef solve(x): return o",
    ),
    "length_is_text": (
        "a length, a truth and an iterator that are none",
        "class O:\n  def __len__(s): return 2**63 - 1\n  def __bool__(s): return True\n  def __iter__(s): return s\n"
        "  def __next__(s): return s\ndef solve(x): return O()",
    ),
    "cyclic": ("an endless structure", "def solve(x):\n  a = []; a.append(a); return a"),
    "deep": (
        "a structure deeper than the grader's stack",
        "def solve(x):\n  a = []\n  for _ in range(3000): a = [a]\n  return a",
    ),
    "deep_and_forged": (
        "the same, past the encoder",
        "import os\nm = b'l\\x01\\0\\0\\0' * 100000 + b'N'\nos.write(4, len(m).to_bytes(4, 'little') + m)\ndef solve(x): pass",
    ),
    "shared_bomb": (
        "a structure of 2**60 leaves in 60 lists",
        "def solve(x):\n  a = [0]\n  for _ in range(60): a = [a, a]\n  return a",
    ),
    "huge_text": ("a reply of a hundred megabytes", "def solve(x): return 'x' * 10**8"),
    "huge_int": ("an int that the grader cannot print", "def solve(x): return 1 << 6_000_000"),
    "colliding_keys": (
        "a dictionary that takes the grader a minute to build",
        "def solve(x): return dict.fromkeys(range(0, 60_000 * (2**61 - 1), 2**61 - 1))",
    ),
    "colliding_keys_forged": (
        "the same without paying for it here",
        "import os\nk = [(i * (2**61 - 1)).to_bytes(10, 'little') for i in range(66_000)]\n"
        "d = b'd' + len(k).to_bytes(4, 'little') + b''.join(b'i\\x0a\\0\\0\\0' + b + b'N' for b in k)\n"
        "m = b't\\x02\\0\\0\\0s\\x06\\0\\0\\0loaded' + d\n"
        "m = m[:1_000_000]\nos.write(4, len(m).to_bytes(4, 'little') + m)\ndef solve(x): pass",
    ),
    "nan": ("values that no comparison settles", "def solve(x): return float('nan')"),
    "infinity": ("a value beyond every bound", "def solve(x): return float('inf')"),
    "not_implemented": ("a value that makes == ask the other side", "def solve(x): return NotImplemented"),
    "surrogates": ("text that cannot be encoded", "def solve(x): return '\\ud800' * 10"),
    "name_in_other_letters": (
        "a name that is normalised to the one asked for",
        "def ｓｏｌｖｅ(x): return E()\nclass E:\n  def __eq__(s, o): return True",
    ),
    "null_characters": ("a source that is cut short", "def solve(x): return 17\n\0\nraise SystemExit"),
    "trace_function": (
        "a tracer that repairs what the test compares",
        "import sys\ndef t(f, e, a):\n  f.f_locals['x'] = 0\n  return t\nsys.settrace(t); sys.setprofile(t)\n"
        "def solve(x): return 17",
    ),
    "import_hook": (
        "a hook that hands out changed modules",
        "import sys\nclass H:\n  def find_spec(s, *a): raise SystemExit(0)\nsys.meta_path.insert(0, H())\n"
        "sys.path_hooks.clear(); sys.modules.clear()\ndef solve(x): return 17",
    ),
    "patched_runner": (
        "the encoder, replaced by one that says what pleases",
        "import gc, types\nfor o in gc.get_objects():\n"
        "  if isinstance(o, types.FunctionType) and o.__name__ in ('encode', '_answer', '_write'):\n"
        "    o.__code__ = (lambda *a, **k: b't\\x01\\0\\0\\0s\\x02\\0\\0\\0ok').__code__\ndef solve(x): return 17",
    ),
    "signal_handlers": (
        "the deadline's signal, ignored",
        "import signal\nfor s in range(1, 65):\n  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\n"
        "def solve(x):\n  while True: pass",
    ),
    "mutated_argument": (
        "an argument that becomes the answer",
        "def solve(x):\n  if isinstance(x, list): x[:] = []\n  return x",
    ),
    "change_of_what_was_not_given": (
        "other containers of the test, by number, filled with what pleases",
        "import os\nr = b't\\x02\\0\\0\\0s\\x05\\0\\0\\0valueT'\n"
        "def solve(x):\n  for n in range(9):\n    m = b't\\x02\\0\\0\\0t\\x01\\0\\0\\0t\\x02\\0\\0\\0i\\x01\\0\\0\\0' + bytes([n]) + b't\\0\\0\\0\\0' + r\n"
        "    os.write(4, len(m).to_bytes(4, 'little') + m)",
    ),
    "parts_that_are_none": (
        "values of the standard library that cannot be built",
        "import os\nfor p in (b'F\\x02\\0\\0\\0NN', b'D\\x01\\0\\0\\0N', b't\\0\\0\\0\\0', b'n\\x03\\0\\0\\0NNN', b'z\\x01\\0\\0\\0s\\x02\\0\\0\\0..', b'q\\x01\\0\\0\\0N', b'?\\0\\0\\0\\0'):\n"
        "  m = b't\\x02\\0\\0\\0t\\0\\0\\0\\0t\\x02\\0\\0\\0s\\x05\\0\\0\\0valuex' + p\n  os.write(4, len(m).to_bytes(4, 'little') + m)\ndef solve(x): return 17",
    ),
    "named_tuple_of_methods": (
        "fields that answer for methods",
        "from collections import namedtuple\nP = namedtuple('P', 'count index x')\ndef solve(x): return P(lambda *a: True, bool, x)",
    ),
    "endless_decimal": (
        "a number that takes the grader forever",
        "from decimal import Decimal\ndef solve(x): return Decimal('1E+999999')",
    ),
    "huge_fraction": (
        "a fraction that takes the grader a minute to reduce",
        "from fractions import Fraction\ndef solve(x):\n  r = Fraction(1, 3); r._numerator = 3 ** 1_500_000; r._denominator = 2 ** 2_000_000; return r",
    ),
    "thread_that_replies": (
        "a thread that goes on replying",
        "import os, threading\nm = b't\\x02\\0\\0\\0s\\x05\\0\\0\\0valueT'\ndef go():\n  while True:\n"
        "    os.write(4, len(m).to_bytes(4, 'little') + m)\nthreading.Thread(target=go, daemon=True).start()\n"
        "def solve(x): return 17",
    ),
    "closed_descriptors": (
        "a grader that takes silence for success",
        "import os\nos.closerange(0, 256)\ndef solve(x): return 17",
    ),
    "end_of_nothing": (
        "the end of an iteration in place of a value",
        "import os\nm = b't\\x01\\0\\0\\0s\\x03\\0\\0\\0end'\ndef solve(x): os.write(4, len(m).to_bytes(4, 'little') + m)",
    ),
    "raises_the_graders_own": (
        "the grader's own exceptions, by name",
        "import os\ndef solve(x):\n  for n in (b'_EndOfIteration', b'SystemExit', b'Faults', b'StopIteration'):\n"
        "    m = b't\\x03\\0\\0\\0s\\x06\\0\\0\\0raiseds' + len(n).to_bytes(4, 'little') + n + b's\\0\\0\\0\\0'\n    os.write(4, len(m).to_bytes(4, 'little') + m)",
    ),
    "number_protocols": (
        "an object that is near every number",
        "class F:\n  def __float__(s): return 0.0\n  __sub__ = __rsub__ = __add__ = __radd__ = lambda s, o: 0\n  def __abs__(s): return 0\n"
        "  __lt__ = __le__ = __gt__ = __ge__ = __contains__ = lambda s, o: True\n  def __round__(s, n=0): return 0\n  def __format__(s, f): return ''\ndef solve(x): return F()",
    ),
    "wrong": ("luck", "def solve(x): return 17 + x"),
    "pass": ("nothing at all", "def solve(x): pass"),
    "not_defined": ("a missing function that is skipped", "def resolve(x): return 17"),
    "not_callable": ("a value in place of the function", "solve = 17"),
    "syntax": ("a source that is skipped", "def solve(x) return 17"),
}
