"""The kernel, one function a system call, with the man page's names and order.

The only importer of ctypes. Every function raises OSError with errno and what was tried; nothing here logs,
locks or imports after its module is loaded, so all of it may be used between fork and exec.
"""
