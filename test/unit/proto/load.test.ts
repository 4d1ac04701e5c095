import { describe, expect, it } from 'vitest';
import { loadProtos } from '../../../proto/load.ts';

const { runtimeService, imageService, node } = loadProtos();

const INT64 = [
  '9223372036854775807',
  '9223372036854775806',
  '-9223372036854775808',
  '9007199254740993',
  '-1',
  '0',
];
const UINT64 = ['18446744073709551615', '9223372036854775808', '9007199254740993', '0'];

describe('64-bit integers on the wire', () => {
  it.each(INT64)('keep int64 %s in requests', (value) => {
    const { requestSerialize, requestDeserialize } = runtimeService.UpdateContainerResources;
    const got = requestDeserialize(requestSerialize({ linux: { memory_limit_in_bytes: value } }));
    expect(got.linux?.memory_limit_in_bytes).toBe(value);
  });

  it.each(INT64)('keep int64 %s in answers, wrapped and repeated ones too', (value) => {
    const { responseSerialize, responseDeserialize } = runtimeService.ContainerStatus;
    const user = { linux: { uid: value, supplemental_groups: [value, '1'] } };
    const status = responseDeserialize(responseSerialize({ status: { started_at: value, user } })).status;
    expect(status?.started_at).toBe(value);
    expect(status?.user?.linux).toEqual({ uid: value, gid: '0', supplemental_groups: [value, '1'] });

    const images = imageService.ListImages;
    const list = images.responseDeserialize(images.responseSerialize({ images: [{ uid: { value } }] }));
    expect(list.images[0]?.uid).toEqual({ value });
  });

  it.each(UINT64)('keep uint64 %s, wrapped or not', (value) => {
    const { responseSerialize, responseDeserialize } = imageService.ListImages;
    expect(responseDeserialize(responseSerialize({ images: [{ size: value }] })).images[0]?.size).toBe(value);

    const stats = runtimeService.ContainerStats;
    const cpu = { timestamp: '9223372036854775807', usage_core_nano_seconds: { value } };
    const got = stats.responseDeserialize(stats.responseSerialize({ stats: { cpu } }));
    expect(got.stats?.cpu).toEqual({ ...cpu, usage_nano_cores: null, psi: null });
  });

  it.each(INT64)('keep int64 %s in the progress of a pull', (value) => {
    const { responseSerialize, responseDeserialize } = node.PullImage;
    const layer = { digest: 'sha256:00', total_bytes: value, done_bytes: value, phase: 'UNPACKING' } as const;
    expect(responseDeserialize(responseSerialize({ layer }))).toEqual({ event: 'layer', layer });
  });
});

describe('messages as the handlers see them', () => {
  it('have every field: absent messages are null, absent lists and maps empty, enums their first name', () => {
    const { requestSerialize, requestDeserialize } = runtimeService.RunPodSandbox;
    const got = requestDeserialize(requestSerialize({ config: {} }));
    expect(got.runtime_handler).toBe('');
    expect(got.config).toEqual({
      metadata: null,
      hostname: '',
      log_directory: '',
      dns_config: null,
      port_mappings: [],
      labels: {},
      annotations: {},
      linux: null,
      windows: null,
    });
  });

  it('tell an absent wrapped value from 0', () => {
    const { responseSerialize, responseDeserialize } = imageService.ListImages;
    const sent = { images: [{ uid: { value: '0' } }, { uid: null }, {}] };
    const uids = responseDeserialize(responseSerialize(sent)).images.map((image) => image.uid);
    expect(uids).toEqual([{ value: '0' }, null, null]);
  });

  it('keep bytes, labels and the protocol’s own spelling of names', () => {
    const { requestSerialize, requestDeserialize } = runtimeService.CreateContainer;
    const value = Buffer.from([0xff, 0x00, 0x80]);
    const config = {
      envs: [{ key: 'A', value }],
      mounts: [{ uidMappings: [{ host_id: 4294967295, container_id: 0, length: 1 }] }],
      CDI_devices: [{ name: 'vendor.example/class=one' }],
      labels: { constructor: 'x', 'a.b/c': '' },
    };
    const got = requestDeserialize(requestSerialize({ config })).config;
    expect(got?.envs).toEqual([{ key: 'A', value }]);
    expect(got?.mounts[0]?.uidMappings).toEqual([{ host_id: 4294967295, container_id: 0, length: 1 }]);
    expect(got?.CDI_devices).toEqual([{ name: 'vendor.example/class=one' }]);
    expect({ ...got?.labels }).toEqual({ constructor: 'x', 'a.b/c': '' });
  });

  it('keep an import’s name apart from its chunks', () => {
    const { requestSerialize, requestDeserialize } = node.ImportImage;
    expect(requestDeserialize(requestSerialize({ name: '' }))).toEqual({ part: 'name', name: '' });
    const chunk = Buffer.from('tar');
    expect(requestDeserialize(requestSerialize({ chunk }))).toEqual({ part: 'chunk', chunk });
  });
});
