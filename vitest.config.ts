import { defineConfig } from 'vitest/config';

/** Tests that boot a machine of their own under QEMU. */
const MACHINES = 'test/integration/{node,vm}-*.test.ts';

/** How long a condition is waited for, milliseconds: a busy machine needs seconds for what takes none. */
const patient = { testTimeout: 30_000, expect: { poll: { timeout: 20_000, interval: 20 } } };

const real = {
  ...patient,
  // They share the machine's cgroups, mounts and network.
  fileParallelism: false,
  testTimeout: 60_000,
  hookTimeout: 120_000,
};

export default defineConfig({
  test: {
    projects: [
      { test: { ...patient, name: 'unit', include: ['test/unit/**/*.test.ts'] } },
      {
        test: { ...real, name: 'integration', include: ['test/integration/**/*.test.ts'], exclude: [MACHINES] },
      },
      { test: { ...real, name: 'machines', include: [MACHINES] } },
    ],
  },
});
