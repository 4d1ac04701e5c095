/** Raised when host and guest could misunderstand each other; the host refuses an agent of another version. */
export const PROTOCOL_VERSION = 2;

/** The agent's port: the name of the virtio-serial port, and its number over vsock. */
export const AGENT_PORT_NAME = 'berth.agent';
export const AGENT_VSOCK_PORT = 1024;

/** On the guest's command line: the agent is reached over vsock. */
export const VSOCK_ARGUMENT = 'berth.channel=vsock';

/** Where the agent mounts the share with tag {@link SHARE_TAG}. */
export const SHARE_TAG = 'berth';
export const SHARE_PATH = '/run/berth/shared';
