import type { CgroupMode } from '../../../cgroups/types.ts';
import { BerthError } from '../../errors.ts';
import type { ShimProtos } from '../../shim/protos.ts';
import { handle } from '../../shim/ttrpc/server.ts';
import { parseOci } from '../../spec/json.ts';
import { type ContainerFigures, metricsV1, metricsV2, type PodFigures, podMetrics } from './metrics.ts';
import type { Pod } from './pod.ts';
import { timestamp } from './timestamp.ts';

const DETAILS = 'containerd.runc.v1.ProcessDetails';
const NOTHING = {};

/** What the task service works with. */
export interface TaskServiceParts {
  pod: Pod;
  protos: ShimProtos;
  /** Of the host, by which figures are told. */
  mode: CgroupMode;
  /** Ends the shim, after the answer. */
  shutdown(): void;
}

/** The methods of the task service, of both versions, and of what berthd asks beside, by their paths. */
export function taskMethods(parts: TaskServiceParts): Record<string, ReturnType<typeof handle>> {
  const { taskV2, taskV3, guest } = parts.protos;
  // Their messages are the same, field by field.
  const ofTasks = { ...methodsOf(parts, taskV2), ...methodsOf(parts, taskV3 as unknown as typeof taskV2) };
  const { Figures } = guest;
  return {
    ...ofTasks,
    [Figures.path]: handle(Figures, async ({ id }) => figuresOf(await parts.pod.figures(id))),
  };
}

function figuresOf({ maxOpenFiles, sockets, ...figures }: ContainerFigures) {
  return {
    ...figures,
    ...(sockets === undefined ? {} : { sockets }),
    ...(maxOpenFiles === undefined ? {} : { max_open_files: maxOpenFiles }),
  };
}

function methodsOf(
  parts: TaskServiceParts,
  service: ShimProtos['taskV2'],
): Record<string, ReturnType<typeof handle>> {
  return { ...lifecycle(parts, service), ...processes(parts, service), ...resources(parts, service) };
}

function lifecycle({ pod, shutdown }: TaskServiceParts, service: ShimProtos['taskV2']) {
  const { Create, Start, Delete, Kill, Wait, State, Connect, Shutdown, Checkpoint } = service;
  return {
    [Create.path]: handle(Create, async ({ id, bundle, rootfs, checkpoint, ...stdio }) => {
      if (checkpoint !== '') throw new BerthError('unimplemented', 'a virtual machine has no checkpoints');
      return { pid: await pod.create({ id, bundle, rootfs, stdio }) };
    }),
    [Start.path]: handle(Start, async ({ id, exec_id }) => ({ pid: await pod.start(id, exec_id) })),
    [Delete.path]: handle(Delete, async ({ id, exec_id }) => {
      const { pid, end } = await pod.delete(id, exec_id);
      return { pid, ...exit(end) };
    }),
    [Kill.path]: handle(Kill, async ({ id, exec_id, signal, all }) => {
      await pod.kill(id, exec_id, signal, all);
      return NOTHING;
    }),
    [Wait.path]: handle(Wait, async ({ id, exec_id }) => exit(await pod.process(id, exec_id).ended)),
    [State.path]: handle(State, async ({ id, exec_id }) => {
      const { pid, paths, status, end } = pod.process(id, exec_id);
      return {
        ...{ id, exec_id, bundle: pod.bundleOf(id), pid, status, ...paths },
        ...(end === undefined ? {} : exit(end)),
      };
    }),
    [Connect.path]: handle(Connect, async ({ id }) => ({
      ...{ shim_pid: process.pid, task_pid: pod.pidOf(id), version: 'v2' },
    })),
    [Shutdown.path]: handle(Shutdown, async ({ now }) => {
      if (now || pod.isEmpty) shutdown();
      return NOTHING;
    }),
    [Checkpoint.path]: handle(Checkpoint, async () => {
      throw new BerthError('unimplemented', 'a virtual machine has no checkpoints');
    }),
  };
}

function processes({ pod, protos }: TaskServiceParts, service: ShimProtos['taskV2']) {
  const { Exec, Pids, Pause, Resume, ResizePty, CloseIO } = service;
  return {
    [Exec.path]: handle(Exec, async ({ id, exec_id, spec, ...stdio }) => {
      pod.exec(id, exec_id, json(spec, 'spec'), stdio);
      return NOTHING;
    }),
    [Pids.path]: handle(Pids, async ({ id }) => ({
      processes: (await pod.pids(id)).map(({ pid, execId }) => {
        if (execId === undefined) return { pid };
        return {
          pid,
          info: { type_url: DETAILS, value: protos.processDetails.serialize({ exec_id: execId }) },
        };
      }),
    })),
    [Pause.path]: handle(Pause, async ({ id }) => {
      await pod.freeze(id, 'pause');
      return NOTHING;
    }),
    [Resume.path]: handle(Resume, async ({ id }) => {
      await pod.freeze(id, 'resume');
      return NOTHING;
    }),
    [ResizePty.path]: handle(ResizePty, async ({ id, exec_id, width, height }) => {
      await pod.resizePty(id, exec_id, width, height);
      return NOTHING;
    }),
    [CloseIO.path]: handle(CloseIO, async ({ id, exec_id, stdin }) => {
      if (stdin) pod.closeStdin(id, exec_id);
      return NOTHING;
    }),
  };
}

function resources({ pod, protos, mode }: TaskServiceParts, service: ShimProtos['taskV2']) {
  const { Update, Stats } = service;
  return {
    [Update.path]: handle(Update, async ({ id, resources: limits }) => {
      await pod.update(id, json(limits, 'resources'));
      return NOTHING;
    }),
    [Stats.path]: handle(Stats, async ({ id }) => ({
      stats: metricsOf(await pod.stats(id), mode === 'v2' ? 'v2' : 'v1', protos),
    })),
  };
}

function metricsOf(figures: ContainerFigures | PodFigures, mode: 'v1' | 'v2', protos: ShimProtos) {
  const message = mode === 'v2' ? protos.cgroupV2 : protos.cgroupV1;
  const ofContainer = mode === 'v2' ? metricsV2 : metricsV1;
  const metrics = 'interfaces' in figures ? podMetrics(figures, mode) : ofContainer(figures);
  return { type_url: `io.containerd.cgroups.${mode}.Metrics`, value: message.serialize(metrics) };
}

function exit({ code, at }: { code: number; at: bigint | undefined }) {
  const exited_at = timestamp(at);
  return { exit_status: code, ...(exited_at === undefined ? {} : { exited_at }) };
}

/** OCI's objects travel as JSON, whatever the type is called. @throws BerthError `invalid` */
function json(any: { value: Buffer } | null, field: string): unknown {
  if (any === null) throw new BerthError('invalid', `${field}: is missing`);
  try {
    return parseOci(any.value.toString('utf8'));
  } catch (e: unknown) {
    throw new BerthError('invalid', `${field}: is no JSON`, { cause: e });
  }
}
