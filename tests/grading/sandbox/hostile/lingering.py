"""Two programs on the same isolated interpreter, one after the other: what the first leaves, the second looks for."""

LEAVE = """
import atexit, builtins, ctypes, fcntl, mmap, os, signal, sys, threading, time, types
def attempt(action):
    try: action()
    except BaseException: pass
def write(path):
    with open(path, 'w') as file: file.write('trace')
def solve(places):
    for place in places:
        attempt(lambda: os.makedirs(place, exist_ok=True))
        attempt(lambda: write(os.path.join(place, 'trace')))
        attempt(lambda: os.symlink('/', os.path.join(place, 'trace-link')))
        attempt(lambda: os.makedirs(os.path.join(place, 'trace-folder/a/b/c')))
        attempt(lambda: os.mkdir(os.path.join(place, 'trace-locked'), 0))
    attempt(lambda: write('trace'))
    attempt(lambda: write('sitecustomize.py'))
    attempt(lambda: write('json.py'))
    attempt(lambda: os.umask(0o777))
    attempt(lambda: os.chdir('/'))
    attempt(lambda: signal.setitimer(signal.ITIMER_REAL, 60))
    os.environ['TRACE'] = '1'
    sys.path.insert(0, '/trace')
    sys.setrecursionlimit(77)
    builtins.trace = 1
    builtins.sorted = None
    sys.modules['trace_module'] = types.ModuleType('trace_module')
    import json, math
    json.loads = math.sqrt = None
    attempt(lambda: ctypes.CDLL(None).shmget(4711, 4096, 0o1666))
    atexit.register(write, 'trace')
    def stay():
        while True:
            attempt(lambda: write('trace'))
    for _ in range(3): threading.Thread(target=stay, daemon=True).start()
    attempt(lambda: fcntl.flock(0, fcntl.LOCK_EX))
    return 'done'
"""

LOOK = """
import builtins, ctypes, json, math, os, sys, threading
def names(folder):
    try: return os.listdir(folder)
    except OSError: return []
def solve(places):
    found = [place for place in places if os.path.lexists(os.path.join(place, 'trace'))]
    found += [name for place in places + ['.'] for name in names(place) if 'trace' in name]
    found += os.listdir('.')
    found += [name for name in os.environ if 'TRACE' in name] + [p for p in sys.path if 'trace' in p]
    if os.getcwd() == '/' : found.append('working directory')
    if hasattr(builtins, 'trace') or builtins.sorted is None: found.append('builtins')
    if 'trace_module' in sys.modules or json.loads is None or math.sqrt is None: found.append('modules')
    if sys.getrecursionlimit() == 77: found.append('recursion limit')
    if threading.active_count() != 1: found.append('threads')
    if os.umask(0o22) == 0o777: found.append('umask')
    if ctypes.CDLL(None).shmget(4711, 4096, 0o666) >= 0: found.append('shared memory')
    return found
"""

PLACES = ["/tmp", "/dev/shm", "/var/tmp", "/run", "/tmp/scratch", "."]
