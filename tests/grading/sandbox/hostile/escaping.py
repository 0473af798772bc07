"""Programs that want to reach what is outside: files, processes, the network, the kernel.

Upper-case names in braces are filled in by the suite: SECRET (a file everyone may read), FOLDER (one everyone may
write to), PORT, DATAGRAM_PORT, SOCKET, GRADER (the process id of the one that judges), PACKAGE (this package's code).
Each ``solve`` returns a list of what it achieved.
"""

# ruff: noqa: E501  (programs, kept to a line each)

_TRY = (
    "import ctypes, fcntl, mmap, os, resource, signal, socket, subprocess, sys, threading, time\n"
    "libc = ctypes.CDLL(None, use_errno=True)\n"
    "def attempt(*attempts):\n  done = []\n  for position, a in enumerate(attempts):\n    try: done.append((position, repr(a())[:100]))\n"
    "    except BaseException as e: pass\n  return done\n"
    "def raw(*a):\n  if os.uname().machine != 'x86_64': raise OSError('these are other calls elsewhere')\n  r = libc.syscall(*[ctypes.c_long(x) if isinstance(x, int) else x for x in a])\n"
    "  if r == -1: raise OSError(ctypes.get_errno(), 'raw')\n  return r\n"
)

_SOLVES = {
    "read_secrets": (
        "files of the user's",
        "attempt(*[lambda p=p: open(p, 'rb').read(20) for p in ('{SECRET}', '/etc/passwd', '/etc/shadow', '/etc/hostname',"
        " os.path.expanduser('~root/.bashrc'), '{PACKAGE}', '/proc/self/environ', '/proc/1/cmdline', '/proc/{GRADER}/environ',"
        " '/proc/self/root{SECRET}', '/proc/self/cwd/../../{SECRET}', '/sys/kernel/uevent_seqnum', '/dev/kmsg', '/dev/mem',"
        " '/dev/vda', '/dev/sda', '/dev/tty')])",
    ),
    "read_by_link": (
        "the same by links made in the scratch folder",
        "attempt(lambda: (os.symlink('{SECRET}', 's'), open('s').read())[1], lambda: (os.link('{SECRET}', 'h'), open('h').read())[1],"
        " lambda: (os.symlink('/', 'r'), open('r{SECRET}').read())[1], lambda: os.rename('{SECRET}', 'm'),"
        " lambda: os.open('{SECRET}', os.O_PATH | os.O_RDONLY) and os.open('/proc/self/fd/9', 0))",
    ),
    "list_folders": (
        "the names of files",
        "attempt(lambda: os.listdir('{FOLDER}'), lambda: os.listdir('/home'), lambda: os.listdir('/var/log'), lambda: os.listdir('/proc'))",
    ),
    "write_outside": (
        "files that stay",
        "attempt(*[lambda p=p: open(p + '/written', 'w').close() for p in ('{FOLDER}', '/', '/etc', '/usr', '/dev/shm', '/var/tmp',"
        " os.path.dirname(os.__file__), os.path.dirname(sys.executable), '/root', '/home', '/run', '/dev', '/dev/mqueue')],"
        " lambda: open('{SECRET}', 'a').write('x'), lambda: os.truncate('{SECRET}', 0), lambda: os.unlink('{SECRET}'),"
        " lambda: os.mkdir('{FOLDER}/d'), lambda: os.symlink('x', '{FOLDER}/l'), lambda: os.mkfifo('{FOLDER}/p'))",
    ),
    "write_by_link": (
        "the same by links made in the scratch folder",
        "attempt(lambda: (os.symlink('{FOLDER}/written', 'w'), open('w', 'w').close()), lambda: (os.symlink('{FOLDER}', 'd'), open('d/written', 'w').close()),"
        " lambda: (open('f', 'w').close(), os.rename('f', '{FOLDER}/written')), lambda: (open('g', 'w').close(), os.link('g', '{FOLDER}/written')))",
    ),
    "change_attributes": (
        "modes, owners and times, which Landlock does not govern",
        "attempt(lambda: os.chmod('{SECRET}', 0o777), lambda: os.chmod('{FOLDER}', 0), lambda: os.chown('{SECRET}', 0, 0),"
        " lambda: os.utime('{SECRET}', (0, 0)), lambda: os.setxattr('{SECRET}', 'user.x', b'x'), lambda: os.chmod(os.__file__, 0o666),"
        " lambda: os.chflags('{SECRET}', 0), lambda: raw(452, -100, b'{SECRET}', 0o777, 0), lambda: os.mknod('n'))",
    ),
    "network": (
        "the network",
        "attempt(lambda: socket.create_connection(('127.0.0.1', {PORT}), 1), lambda: socket.create_connection(('8.8.8.8', 53), 0.2),"
        " lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {DATAGRAM_PORT})),"
        " lambda: socket.socket(socket.AF_UNIX).connect('{SOCKET}'), lambda: socket.socket(socket.AF_UNIX).connect('\\0bontune'),"
        " lambda: socket.socket(socket.AF_INET6), lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), lambda: socket.socketpair(),"
        " lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW), lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET))",
    ),
    "processes": (
        "processes that outlive it",
        "attempt(os.fork, os.forkpty, lambda: os.system('true') == 0 or 1 / 0, lambda: subprocess.run(['true']), lambda: os.posix_spawn(sys.executable, ['x'], {}),"
        " lambda: os.execv(sys.executable, ['x']), lambda: os.popen('id').read() or 1 / 0, lambda: raw(57), lambda: raw(58), lambda: raw(56, 17, 0, 0, 0, 0),"
        " lambda: raw(56, 0x100 | 17, 0, 0, 0, 0), lambda: raw(435, b'\\0' * 88, 88), lambda: raw(59, sys.executable.encode(), None, None),"
        " lambda: __import__('multiprocessing').Process(target=print).start(), os.setsid, lambda: os.setpgid(0, 0))",
    ),
    "fork_bomb": ("every process there is", "attempt(*[os.fork] * 100)"),
    "signals": (
        "its parent and the grader, dead",
        "attempt(lambda: os.kill(os.getppid(), 9), lambda: os.kill({GRADER}, 9), lambda: os.kill(-1, 9), lambda: os.killpg(0, 9), lambda: os.kill(1, 9),"
        " lambda: raw(234, os.getppid(), os.getppid(), 9), lambda: raw(200, {GRADER}, 9), lambda: os.pidfd_open(os.getppid()), lambda: os.pidfd_open({GRADER}),"
        " lambda: raw(424, 3, 9, 0, 0), lambda: raw(129, {GRADER}, 9, b'\\0' * 128), lambda: raw(297, {GRADER}, {GRADER}, 9, b'\\0' * 128))",
    ),
    "signals_by_descriptor": (
        "the same by a descriptor's owner, in every spelling",
        "attempt(*[lambda c=c, v=v: fcntl.fcntl(os.pipe()[0], c, v) for c, v in ((8, os.getppid()), (8, {GRADER}), (8, -1), (10, 9), (15, b'\\1\\0\\0\\0' + (1).to_bytes(4, 'little')))],"
        " lambda: raw(72, os.pipe()[0], 8 | 1 << 32, os.getppid()), lambda: fcntl.ioctl(os.pipe()[0], 0x8901, os.getppid().to_bytes(4, 'little')),"
        " lambda: fcntl.ioctl(os.pipe()[0], 0x8902, os.getppid().to_bytes(4, 'little')), lambda: fcntl.ioctl(3, 0x5412, b'x'))",
    ),
    "other_memory": (
        "the memory of its parent and of the grader",
        "attempt(lambda: raw(101, 16, os.getppid(), 0, 0), lambda: raw(101, 0x4206, {GRADER}, 0, 0), lambda: raw(101, 0, 0, 0, 0), lambda: raw(310, os.getppid(), b'\\0' * 16, 1, b'\\0' * 16, 1, 0),"
        " lambda: raw(311, {GRADER}, b'\\0' * 16, 1, b'\\0' * 16, 1, 0), lambda: raw(312, os.getpid(), os.getppid(), 0, 0, 0), lambda: raw(438, 3, 3, 0),"
        " lambda: open('/proc/%d/mem' % os.getppid(), 'r+b'), lambda: open('/proc/self/mem', 'r+b'), lambda: raw(157, 0x59616d61, -1, 0, 0, 0), lambda: raw(157, 1, 0, 0, 0, 0))",
    ),
    "limits": (
        "more than it was given, and less for others",
        "attempt(lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)), lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)),"
        " lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0)), lambda: resource.prlimit({GRADER}, resource.RLIMIT_AS), lambda: os.sched_setaffinity(os.getppid(), [0]),"
        " lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19), lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)), lambda: raw(251, 1, os.getppid(), 0))",
    ),
    "identity": (
        "another user's rights",
        "attempt(lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.chroot('.'), lambda: raw(126, b'\\0' * 8, b'\\xff' * 24),"
        " lambda: libc.unshare(0x10000000) and 1 / 0, lambda: libc.unshare(0x20000) and 1 / 0, lambda: raw(308, 3, 0), lambda: raw(135, 0x0400000))",
    ),
    "kernel": (
        "kernel interfaces with a history",
        "attempt(*[lambda n=n: raw(n, 0, 0, 0, 0, 0, 0) for n in (425, 321, 298, 323, 248, 249, 250, 155, 165, 166, 169, 175, 313, 246, 320, 300, 303, 304, 29, 30, 64, 68, 240, 319, 447,"
        " 428, 429, 430, 432, 442, 440, 448, 164, 227, 305, 170, 463, 467, 470, 500, 999)])",
    ),
    "shared_memory": (
        "memory that outlives it",
        "attempt(lambda: raw(29, 1, 4096, 0o1666), lambda: os.memfd_create('x'), lambda: raw(64, 1, 1, 0o1666), lambda: raw(68, 1, 0o1666), lambda: raw(240, b'/q', 0o102, 0o666, 0), lambda: __import__('multiprocessing.shared_memory').shared_memory.SharedMemory('x', True, 10))",
    ),
    "foreign_calls": (
        "system calls by numbers of another instruction set",
        "attempt(lambda: raw(0x40000000 + 57), lambda: raw(0x40000000 + 39), lambda: raw(0x40000000 + 520, 0, 0, 0))",
    ),
    "watches": (
        "the names of files that others make, which Landlock does not govern",
        "attempt(lambda: raw(254, raw(294, 0), b'{FOLDER}', 0xfff), lambda: raw(254, raw(253), b'/', 0xfff), lambda: raw(300, 0, 0))",
    ),
    "asynchronous_calls": (
        "a budget of the whole machine's",
        "attempt(lambda: raw(206, 60000, ctypes.byref(ctypes.c_ulong())), lambda: raw(209, 0, 0, 0))",
    ),
    "other_files_by_descriptor": (
        "a file's content by a descriptor that may not read it",
        "attempt(lambda: raw(265, os.open('{SECRET}', os.O_PATH), b'', -100, b'l', 0x1000), lambda: raw(316, -100, b'{SECRET}', -100, b'x', 2),"
        " lambda: raw(437, -100, b'{SECRET}', b'\\0' * 24, 24), lambda: os.open('.', os.O_RDONLY, dir_fd=os.open('{FOLDER}', os.O_PATH)))",
    ),
    "namespaces_by_thread": (
        "a namespace of its own, for a thread",
        "attempt(*[lambda f=f: raw(56, f | 0x10f00, 0, 0, 0, 0) for f in (0x10000000, 0x20000000, 0x40000000, 0x08000000, 0x02000000)], lambda: raw(1 << 32 | 57), lambda: raw(1 << 32 | 41, 1, 1, 0))",
    ),
    "timers_of_others": (
        "a timer that signals its parent, and the parent's scheduling",
        "attempt(lambda: raw(222, 0, b'\\0' * 8 + b'\\x09\\0\\0\\0\\4\\0\\0\\0' + os.getppid().to_bytes(4, 'little') + b'\\0' * 44, b'\\0' * 8), lambda: raw(157, 62, 1, {GRADER}, 0, 0),"
        " lambda: raw(157, 62, 2, os.getppid(), 2, 0), lambda: raw(302, 1 << 32, 9, 0, b'\\0' * 16), lambda: raw(157, 1 << 40 | 4, 1, 0, 0, 0), lambda: os.nice(1))",
    ),
    "terminal": (
        "the user's keyboard",
        "attempt(lambda: fcntl.ioctl(0, 0x5412, b'x'), lambda: open('/dev/tty', 'w'), lambda: open('/dev/pts/0', 'w'), lambda: os.openpty())",
    ),
}

PROGRAMS: dict[str, tuple[str, str]] = {
    name: (aim, f"{_TRY}def solve(x): return {body}") for name, (aim, body) in _SOLVES.items()
}

MACHINE_CODE = (
    "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\n"
    "m.write(b'\\xb8\\x02\\0\\0\\0\\xcd\\x80\\xc3')\n"  # mov eax, 2 (fork, as 32-bit code numbers it); int 0x80; ret
    "solve = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
    "call = solve\ndef solve(x): return [call()]\n"
)
"""Fork, called as 32-bit code would: the filter speaks of another instruction set's numbers there."""
