// The one way by which the rest of src/ comes to the messages of the shim API, which it hands on unseen.
export { loadShimProtos, type ShimProtos, type TaskEventName } from '../../proto/load-shim.ts';
