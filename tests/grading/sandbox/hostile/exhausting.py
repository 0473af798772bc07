"""Programs that want to use up the machine or the grader's time."""

# ruff: noqa: E501  (programs, kept to a line each)

PROGRAMS: dict[str, tuple[str, str]] = {
    "busy": ("time, in a loop", "def solve(x):\n  while True: pass"),
    "busy_at_import": ("time, while loading", "while True: pass"),
    "asleep": ("time, without using the processor", "import time\ndef solve(x): time.sleep(10**6)"),
    "busy_in_c": ("time where no signal is looked at", "def solve(x): return 3 ** (10 ** 9)"),
    "regular_expression": (
        "time in a backtracking match",
        "import re\ndef solve(x): return re.match(r'(a+)+$', 'a' * 40 + 'b')",
    ),
    "hangs_in_del": (
        "time when it is cleaned up",
        "class D:\n  def __del__(s):\n    while True: pass\ndef solve(x): D(); return 17",
    ),
    "hangs_at_exit": (
        "time after the last answer",
        "import atexit\ndef w():\n  while True: pass\natexit.register(w)\ndef solve(x): return 1",
    ),
    "slow_drip": (
        "time, by answering one byte now and then",
        "import os, time\ndef solve(x):\n  os.write(4, (10**5).to_bytes(4, 'little'))\n  while True:\n    os.write(4, b'N'); time.sleep(0.1)",
    ),
    "memory": ("memory, by growing", "def solve(x):\n  a = []\n  while True: a.append(bytearray(10**7))"),
    "memory_at_once": ("memory, at once", "def solve(x): return len(bytearray(10**11))"),
    "memory_map": (
        "memory, shared and anonymous",
        "import mmap\nm = []\ndef solve(x):\n  while True: m.append(mmap.mmap(-1, 10**8)); m[-1][::4096] = b'x' * len(m[-1][::4096])",
    ),
    "decompression": (
        "memory, from a small file",
        "import zlib\ndef solve(x):\n  z = zlib.compress(bytes(10**7))\n  return [zlib.decompress(z) for _ in range(10**4)]",
    ),
    "recursion": ("the stack", "import sys\nsys.setrecursionlimit(10**9)\ndef solve(x): return solve(x)"),
    "recursion_in_c": (
        "the stack of the C library",
        "import ast\ndef solve(x): return ast.parse('(' * 10**5 + ')' * 10**5)",
    ),
    "nested_source": ("the compiler's stack", "solve = " + "(" * 2000 + ")" * 2000),
    "threads": (
        "threads",
        "import threading, time\nthreading.stack_size(32768)\ndef solve(x):\n  n = 0\n  try:\n    while True:\n"
        "      threading.Thread(target=time.sleep, args=(100,), daemon=True).start(); n += 1\n  except BaseException: return n",
    ),
    "descriptors": ("file descriptors", "import os\ndef solve(x):\n  while True: os.pipe()"),
    "pipes": (
        "kernel memory, in pipes",
        "import fcntl, os\ndef solve(x):\n  p = []\n  try:\n    while True:\n      r, w = os.pipe(); fcntl.fcntl(w, 1031, 1 << 20)\n"
        "      p.append(os.write(w, bytes(1 << 16)))\n  except OSError: return len(p)",
    ),
    "output": (
        "the disk, or the grader's memory, by printing",
        "def solve(x):\n  while True: print('x' * 10**6, flush=True)",
    ),
    "one_file": (
        "the disk, by one file",
        "def solve(x):\n  with open('f', 'wb') as f:\n    while True: f.write(bytes(10**6))",
    ),
    "many_bytes": (
        "the disk, by many files",
        "def solve(x):\n  n = 0\n  while True:\n    n += 1\n    with open(f'f{n}', 'wb') as f: f.write(bytes(10**7))",
    ),
    "many_files": ("inodes", "def solve(x):\n  n = 0\n  while True:\n    n += 1\n    open(f'f{n}', 'w').close()"),
    "deep_folders": (
        "the grader's cleaning, by nesting",
        "import os\ndef solve(x):\n  for _ in range(1500):\n    os.mkdir('d'); os.chdir('d')\n  open('f', 'w').close()\n  return 1",
    ),
    "locked_folders": (
        "the grader's cleaning, by folders nobody may enter",
        "import os\ndef solve(x):\n  os.makedirs('a/b/c'); open('a/b/f', 'w').close(); os.mkdir('a/z', 0)\n"
        "  for m in ('a/b', 'a'):\n    try: os.chmod(m, 0)\n    except OSError: pass\n  return 1",
    ),
    "hidden_folder": (
        "the disk, in a folder that can be filled and not be read",
        "import os\ndef solve(x):\n  os.mkdir('q', 0o300); os.chdir('q')\n  for n in range(200):\n"
        "    with open(f'f{n}', 'wb') as f: f.write(bytes(10**6))\n  while True: pass",
    ),
    "long_names": (
        "the disk, below a path that is too long to be looked at",
        "import os\ndef solve(x):\n  for _ in range(20): os.mkdir('d' * 250); os.chdir('d' * 250)\n  for n in range(200):\n"
        "    with open(f'f{n}', 'wb') as f: f.write(bytes(10**6))\n  while True: pass",
    ),
    "spinning_threads": (
        "the processor that the grader needs, where no lock of Python's is held",
        "import hashlib, threading\nthreading.stack_size(65536)\ndef spin(): hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**8)\ndef solve(x):\n"
        "  for _ in range(300): threading.Thread(target=spin, daemon=True).start()\n  spin()",
    ),
    "empty_sets": (
        "the grader's memory, fifty bytes for each that is sent",
        "import os\nm = b't\\x02\\0\\0\\0s\\x05\\0\\0\\0valuel' + (190_000).to_bytes(4, 'little') + b'S\\0\\0\\0\\0' * 190_000\ndef solve(x):\n"
        "  v = memoryview(len(m).to_bytes(4, 'little') + m)\n  while v: v = v[os.write(4, v):]\n  while True: pass",
    ),
    "stopped": ("time, by stopping itself", "import os, signal\ndef solve(x): signal.raise_signal(signal.SIGSTOP)"),
    "killed": ("an exit the grader does not expect", "import ctypes\ndef solve(x): ctypes.string_at(0)"),
    "aborted": ("a core dump", "import os\ndef solve(x): os.abort()"),
    "pauses_the_grader": (
        "time, by never reading its arguments",
        "import os, time\nos.close(3)\ntime.sleep(100)\ndef solve(x): pass",
    ),
    "endless_iterator": (
        "the grader's memory, by an answer without end",
        "import itertools\ndef solve(x): return itertools.count()",
    ),
    "inotify": (
        "kernel objects",
        "import ctypes\nl = ctypes.CDLL(None)\ndef solve(x): return [l.inotify_init1(0) for _ in range(1000)][-1]",
    ),
}
