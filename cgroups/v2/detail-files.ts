/** All files of a cgroup that its details are read from, but those of huge pages. */
export const DETAIL_FILES: readonly string[] = [
  ...['cpu.stat', 'cpu.max', 'cpu.weight', 'cpu.pressure'],
  ...['memory.stat', 'memory.current', 'memory.max', 'memory.low', 'memory.peak', 'memory.events'],
  ...['memory.swap.current', 'memory.swap.max', 'memory.pressure'],
  ...['pids.current', 'pids.max', 'io.stat', 'io.pressure'],
];
